"""The workshop's routes: `GET /` and `GET /{prompt}`."""
