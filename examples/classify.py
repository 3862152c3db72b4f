"""Classify a picture: `python classify.py PICTURE [SERVER]`. Needs nothing but Python."""

import json
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

picture, server = sys.argv[1], (sys.argv[2:] or ["http://127.0.0.1:3000"])[0]
request = Request(
    f"{server}/classify?top_k=3", data=Path(picture).read_bytes(), headers={"Content-Type": "application/octet-stream"}
)
try:
    answer = json.load(urlopen(request, timeout=30))
except HTTPError as error:
    sys.exit(f"{error.code}: {json.load(error)['error']['message']}")
for each in answer["predictions"]:
    print(f"{each['probability']:.3f} {each['label']}")
