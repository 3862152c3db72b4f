"""FastAPI with uvicorn: the body is the picture, and no response model checks the response.

With PEER_THREADS=1 the event loop does the work (to be run with several uvicorn workers), with more a thread pool in
one process.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from loadtest.peers.shared import Model, threads

app = FastAPI()
model = Model(threads())
pool = ThreadPoolExecutor(threads()) if threads() > 1 else None


@app.post("/classify")
async def classify(request: Request) -> JSONResponse:
    """Classify the picture in the body."""
    picture = await request.body()
    if pool is None:
        return JSONResponse(model.classify(picture))
    return JSONResponse(await asyncio.get_running_loop().run_in_executor(pool, model.classify, picture))
