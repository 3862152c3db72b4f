"""Import and export of models: folders in Hugging Face layout, and the model store of BentoML."""
