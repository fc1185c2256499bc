"""llama.cpp's own API: `/completion`, `/props` and `/slots`."""
