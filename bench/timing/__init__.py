"""What the runtime study times, and how."""
