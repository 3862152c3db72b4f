"""What a network looked at: Grad-CAM, attention rollout, and the picture that shows them."""
