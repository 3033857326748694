"""What is minimised: terms are functions of tensors, never of networks, so they work in any loop."""
