"""What computes a step: OpenVINO, its options and its memory."""
