"""The model file behind HTTP: Starlette and ONNX Runtime, never JAX.

Read `app` (the routes), `asgi` (the layers around them: bounds of bytes and time, headers, a prefix of
the paths, other origins), `inference_protocol` (the Open Inference Protocol), `openapi` (what
`/openapi.json` says), `batcher` (photos of many requests in one batch), `uploads` (photos in forms and
JSON), `metrics` (figures for Prometheus), `access_log`, `server` (the socket and uvicorn) and
`deadlines` (slow readers and writers are cut off). A new endpoint is a route in `app` and its
description in `openapi`.
"""
