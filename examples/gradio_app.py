"""A page to drop pictures on: `pip install gradio`, then `python gradio_app.py` beside a running service."""

import gradio
import requests

SERVER = "http://127.0.0.1:3000"


def classify(path: str) -> dict[str, float]:
    """Return the probability of each of the best classes."""
    with open(path, "rb") as picture:
        answer = requests.post(f"{SERVER}/classify?top_k=5", files={"image": picture}, timeout=30).json()
    if "error" in answer:
        raise gradio.Error(answer["error"]["message"])
    return {each["label"]: each["probability"] for each in answer["predictions"]}


if __name__ == "__main__":
    gradio.Interface(classify, gradio.Image(type="filepath"), gradio.Label()).launch(show_error=True)
