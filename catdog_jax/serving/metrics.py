"""What `/metrics` tells Prometheus: requests, seconds by stage, batches, verdicts, the process and the build."""

import onnxruntime
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from catdog_jax import __version__
from catdog_jax.runtime.decision import Verdict

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = ("decode", "queue", "compute")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WITH_PHOTOS = ("/predict", "/infer")
_SURE = {True: "true", False: "false", None: "unknown"}
disable_created_metrics()  # the time at which each counter began: a line more a line, that nobody asked for


class Metrics:
    """The figures of one server, each with its help text.

    Example:
      >>> metrics = Metrics("int8", batch_size=8)
      >>> metrics.answered("/predict", 200, 0.02)
      >>> 'catdog_requests_total{path="/predict",status="200"} 1.0' in metrics.text().decode()
      True
    """

    def __init__(self, precision: str, *, batch_size: int, device: str = "cpu", strangers: bool = False):
        """Figures of a server that has done nothing yet.

        Args:
          precision: of the model, as its file says.
          batch_size: photos a batch at most.
          device: where the model runs.
          strangers: whether the model tells photos of neither class.
        """
        self._registry = registry = CollectorRegistry()
        build = "What runs: versions, the precision of the model, and the device that it runs on."
        labels = {"version": __version__, "onnxruntime": onnxruntime.__version__, "precision": precision}
        labels["device"] = device
        Gauge("catdog_build_info", build, [*labels], registry=registry).labels(**labels).set(1)
        self._requests = Counter(
            "catdog_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self._latency = Histogram(
            "catdog_request_seconds",
            "Seconds from the headers of a request with photos to the end of its answer.",
            ["path"],
            registry=registry,
            buckets=_SECONDS,
        )
        stages = Histogram(
            "catdog_stage_seconds",
            "Seconds by stage: decode (a photo's file, or a request's tensor, with the wait for a thread), "
            "queue (a photo's wait for its batch), compute (a batch, in the model).",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.decode, self.queue, self.compute = (stages.labels(stage) for stage in STAGES)
        sizes = sorted({size for size in (1, 2, 4, 8, 16, 32, 64, batch_size) if size <= batch_size})
        self.batch = Histogram(
            "catdog_batch_photos", "Photos that were computed at once.", registry=registry, buckets=sizes
        )
        self._verdicts = Counter(
            "catdog_verdicts",
            "Photos by verdict: the class, and whether the model is sure (true, false, unknown).",
            ["class", "sure"],
            registry=registry,
        )
        self._neither = Counter(
            "catdog_neither_photos",
            "Photos that are of neither class; each counts in catdog_verdicts too, as what it leans to.",
            registry=registry if strangers else None,
        )
        self.unreadable = Counter(
            "catdog_unreadable_photos", "Photos that could not be decoded, and have no verdict.", registry=registry
        )
        self.requests_in_flight = Gauge(
            "catdog_requests_in_flight", "Requests with photos that are in work.", registry=registry
        )
        self.photos_in_flight = Gauge(
            "catdog_photos_in_flight", "Photos that are in work; --queue is the most.", registry=registry
        )
        ProcessCollector(registry=registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer; `path` is one of the server's, lest strangers make new ones without end."""
        self._requests.labels(path, str(status)).inc()
        if path.endswith(_WITH_PHOTOS):
            self._latency.labels(path).observe(seconds)

    def judged(self, verdict: Verdict) -> None:
        """Counts a verdict."""
        self._verdicts.labels(verdict.name, _SURE[verdict.sure]).inc()
        if verdict.neither:
            self._neither.inc()

    def text(self) -> bytes:
        """All figures in the text format of Prometheus, `CONTENT_TYPE`."""
        return generate_latest(self._registry)
