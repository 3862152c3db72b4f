"""FastAPI with uvicorn and no model: reads the body and sends a constant response."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

app = FastAPI()
ANSWER = {"predictions": [{"label": "nothing", "index": 0, "probability": 1.0}]}


@app.post("/classify")
async def classify(request: Request) -> JSONResponse:
    """Send the constant once the body has arrived."""
    await request.body()
    return JSONResponse(ANSWER)
