"""Ways in and out for models: folders in Hugging Face layout, and the model store of BentoML."""
