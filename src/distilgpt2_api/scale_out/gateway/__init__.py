"""One address in front of many replicas of the application, independent of the transport to them."""
