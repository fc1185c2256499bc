"""One address in front of many replicas of the application, whatever carries requests to them."""
