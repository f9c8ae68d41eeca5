"""The model file behind HTTP: Starlette and ONNX Runtime, never JAX.

Read `app` (the routes), `asgi` (bounds of bytes and time, headers, counts), `inference_protocol`
(the Open Inference Protocol), `openapi` (what `/openapi.json` says), `batcher` (photos of many
requests in one batch), `uploads` (multipart bodies), `server` (the socket and uvicorn) and
`deadlines` (slow readers and writers are cut off). A new endpoint is a route in `app` and its
description in `openapi`.
"""
