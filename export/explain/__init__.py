"""Heat maps that explain a classification: Grad-CAM, attention rollout, and the image that shows them."""
