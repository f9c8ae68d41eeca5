"""What stands around the server: a proxy with a prefix, pages of other origins, logs, Prometheus, clients that send JSON."""

import asyncio
import base64
import json
import re

import numpy as np
import pytest
from helpers.models import METADATA, probability_of_dogs, tiny_model
from helpers.serving import FORM, conversation, multipart, photo

from catdog_jax.config import ServeConfig
from catdog_jax.errors import CatdogError, UsageError
from catdog_jax.runtime.predictor import Predictor

app = pytest.importorskip("catdog_jax.serving.app", reason="the extra `serve` is not installed")
asgi = pytest.importorskip("catdog_jax.serving.asgi")
access_log = pytest.importorskip("catdog_jax.serving.access_log")
serve_command = pytest.importorskip("catdog_jax.commands.serve")
parser = pytest.importorskip("prometheus_client.parser")
JSON = "application/json"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("surroundings") / "model.onnx"
    metadata = METADATA | {"head": json.dumps({"abstain_below": 0.8}), "precision": "fp32"}
    path.write_bytes(tiny_model(metadata=metadata).SerializeToString())
    return path


def served(model, *requests, **settings):
    return conversation(app.application(Predictor(model, batch_size=8), ServeConfig(**settings)), *requests)


def get(path, **headers):
    return (path,), headers


def post(path, body, kind="image/png", **headers):
    return (path, body, kind), headers


def error(answer):
    status, _, content = answer
    return status, json.loads(content)["error"]


# A proxy


@pytest.mark.parametrize("given", ["/a/catdog", "/a/catdog/"])
def test_a_prefix_may_be_left_or_taken_off_and_paths_may_end_with_a_slash(model, given):
    prefix = "/a/catdog"
    paths = [f"{start}{path}" for start in ("", prefix) for path in ("/v2/health/ready", "/v2/health/ready/", "/")]
    found = served(model, *map(get, [*paths, prefix]), root_path=given)
    assert [status for status, _, _ in found] == [200] * 7
    for _, headers, content in (found[2], found[5], found[6]):
        assert headers[b"content-type"].startswith(b"text/html")
        links = re.findall(r'(?:href|src)="(?!data:)([^"]+)"', content.decode())
        assert links == [f"{prefix}/page.css", f"{prefix}/page.js"]
    judged = served(model, *(post(f"{start}/predict{end}", photo(140)) for start in ("", prefix) for end in ("", "/")))
    assert [status for status, _, _ in judged] == [200, 200, 404, 404], "without --root-path"
    judged = served(
        model,
        *(post(f"{start}/predict{end}", photo(140)) for start in ("", prefix) for end in ("", "/")),
        root_path=given,
    )
    assert [status for status, _, _ in judged] == [200] * 4
    wrong, near, document = served(model, get("/nothing"), get(f"{prefix}s/v2"), get("/openapi.json"), root_path=given)
    known = f"{prefix}/predict, {prefix}/v2/models/catdog or what {prefix}/openapi.json lists"
    assert error(wrong) == (404, f"GET {prefix}/nothing: expected a path of this server: {known}.")
    assert near[0] == 404, "another path that begins like the prefix"
    assert json.loads(document[2])["servers"] == [{"url": prefix}]


def test_without_a_prefix_the_pages_links_are_relative(model):
    ((_, _, content),) = served(model, get("/"))
    assert re.findall(r'(?:href|src)="(?!data:)([^"]+)"', content.decode()) == ["page.css", "page.js"]
    assert asgi.root_path("") == asgi.root_path("/") == ""


@pytest.mark.parametrize(
    "given", ["catdog", "//", "/a//b", "/a/../b", "/.", '/"><script>', "/a b", "/a?b", "http://x/a", "/ä"]
)
def test_what_is_no_prefix_is_refused(model, given):
    expected = "--root-path: expected a path such as /catdog, of letters, digits, ., _, ~ and -, found "
    with pytest.raises(UsageError) as caught:
        serve_command.serve(ServeConfig(model=model, root_path=given))
    assert str(caught.value) == f"{expected}{given!r}. Leave it out where there is no prefix."


# Other origins

HERE, ELSEWHERE = "https://example.org", "https://example.com"


def preflight(origin, method="POST", headers="content-type"):
    more = {"access_control_request_method": method, "access_control_request_headers": headers}
    return ("/predict",), {"method": "OPTIONS", "origin": origin, **more}


def test_pages_of_other_origins_may_ask_where_they_are_named(model):
    asked = post("/predict", photo(140), origin=HERE), post("/predict", b"none", origin=HERE)
    other = post("/predict", photo(140), origin=ELSEWHERE)
    good, bad, of_other, before, before_other, header = served(
        *(model, *asked, other, preflight(HERE), preflight(ELSEWHERE), preflight(HERE, headers="x-mine")), cors=(HERE,)
    )
    for status, headers, _ in (good, bad):
        assert (status, headers[b"access-control-allow-origin"], headers[b"vary"]) in (
            (200, HERE.encode(), b"Origin"),
            (422, HERE.encode(), b"Origin"),
        )
        assert b"inference-header-content-length" in headers[b"access-control-expose-headers"]
    assert b"access-control-allow-origin" not in of_other[1]
    assert (before[0], before[1][b"access-control-allow-origin"]) == (200, HERE.encode())
    expected = f"--cors: expected an origin of {HERE}, GET or POST, and Content-Type or Inference-Header-Content-Length, found "
    assert error(before_other) == (400, f"{expected}{ELSEWHERE}, POST, content-type.")
    assert error(header) == (400, f"{expected}{HERE}, POST, x-mine.")
    assert b"access-control-allow-origin" not in before_other[1]


def test_any_origin_and_none(model):
    (any_one,) = served(model, get("/v2", origin=ELSEWHERE), cors=("*",))
    assert any_one[1][b"access-control-allow-origin"] == b"*"
    none, before = served(model, get("/v2", origin=ELSEWHERE), preflight(ELSEWHERE))
    assert not [name for name in none[1] if name.startswith(b"access-control")]
    assert before[0] == 405


def test_a_failure_of_the_server_is_told_to_other_origins_too(model):
    application = app.application(Predictor(model), ServeConfig(cors=("*",)))

    async def fails(_):
        raise ZeroDivisionError

    application.router.routes.insert(0, app.Route("/v2", fails))
    answers = []

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v2",
        "headers": [(b"origin", b"https://a.b")],
        "query_string": b"",
    }
    with pytest.raises(ZeroDivisionError):
        asyncio.run(application(scope, None, send))
    headers = dict(answers[0]["headers"])
    assert (answers[0]["status"], headers[b"access-control-allow-origin"]) == (500, b"*")
    assert b"content-security-policy" in headers
    assert json.loads(answers[1]["body"]) == {"error": "the server failed; its log says why."}


@pytest.mark.parametrize(
    "given", ["example.org", "https://example.org/", "https://", "ftp://a", "https://a b", "https://*.org"]
)
def test_what_is_no_origin_is_refused(model, given):
    with pytest.raises(UsageError) as caught:
        serve_command.serve(ServeConfig(model=model, cors=("*", given)))
    expected = f"--cors: expected origins such as https://example.org, or *, found {given!r}."
    assert str(caught.value) == f"{expected} Give the scheme, and no path."


# The access log


def test_the_log_has_a_line_a_request(model, capsys):
    requests = (
        get("/v2"),
        post("/predict?include=probabilities", photo(140)),
        post("/predict", multipart(photo(1), b"no photo"), FORM),
        get("/no\x1b[31m\nthing" + "x" * 300),
    )
    served(model, *requests, access_log="json", root_path="/a")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["method"], line["path"][:12], line["status"], line["photos"]) for line in lines] == [
        ("GET", "/v2", 200, None),
        ("POST", "/predict", 200, 1),
        ("POST", "/predict", 200, 2),
        ("GET", "/no\x1b[31m\nthi", 404, None),
    ]
    assert max(len(line["path"]) for line in lines) == 200
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) and line["ms"] >= 0 for line in lines
    )
    served(model, *requests, access_log="text")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4, "nobody makes lines of their own"
    assert re.fullmatch(r"\S+Z - POST /predict 200 [\d.]+ ms 1 photo", lines[1])
    assert re.fullmatch(r"\S+Z - POST /predict 200 [\d.]+ ms 2 photos", lines[2])
    assert "\x1b" not in lines[3]
    served(model, *requests)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("gone", [BrokenPipeError(), CatdogError("standard output: cannot be written")])
def test_a_log_that_is_gone_stops_no_answer(gone):
    tried = []

    def put(line):
        tried.append(line)
        raise gone

    log = access_log.AccessLog("text", put)
    for _ in range(3):
        log("127.0.0.1", "GET", "/", 200, 0.1, None)
    assert len(tried) == 1


# Prometheus


def families(text):
    return {family.name: family for family in parser.text_string_to_metric_families(text.decode())}


def test_the_metrics_say_what_happened(model):
    asked = [post("/predict", photo(grey)) for grey in (100, 127, 140, 160)]
    asked += [post("/predict", b"no photo"), get("/elsewhere"), get("/metrics")]
    *_, (status, headers, text) = served(model, *asked, batch_size=8)
    assert (status, headers[b"content-type"][:10]) == (200, b"text/plain")
    found = families(text)
    ours = [family for name, family in found.items() if name.startswith("catdog_")]
    assert len(ours) == 9
    assert all(len(family.documentation) > 20 and family.documentation.endswith(".") for family in ours)

    def value(family, suffix, **labels):
        samples = found[family].samples
        (one,) = (s.value for s in samples if s.name == family + suffix and labels.items() <= s.labels.items())
        return one

    assert value("catdog_requests", "_total", path="/predict", status="200") == 4
    assert value("catdog_requests", "_total", path="/predict", status="422") == 1
    assert value("catdog_requests", "_total", path="other", status="404") == 1
    assert value("catdog_request_seconds", "_count", path="/predict") == 5
    assert value("catdog_stage_seconds", "_count", stage="decode") == 5
    assert value("catdog_stage_seconds", "_count", stage="queue") == 4
    assert value("catdog_stage_seconds", "_count", stage="compute") == value("catdog_batch_photos", "_count") == 4
    assert value("catdog_batch_photos", "_sum") == 4
    assert value("catdog_batch_photos", "_bucket", le="8.0") == 4
    assert value("catdog_unreadable_photos", "_total") == 1
    assert value("catdog_requests_in_flight", "") == value("catdog_photos_in_flight", "") == 0
    greys = {("cats", "true"): [100], ("cats", "false"): [127], ("dogs", "true"): [140, 160]}
    for (name, sure), some in greys.items():
        assert value("catdog_verdicts", "_total", **{"class": name, "sure": sure}) == len(some)
    assert value("catdog_build_info", "", precision="fp32", device="cpu") == 1
    assert "_created" not in text.decode()
    stages = [value("catdog_stage_seconds", "_sum", stage=stage) for stage in ("decode", "queue", "compute")]
    assert 0 < sum(stages) <= value("catdog_request_seconds", "_sum", path="/predict")


def test_the_batches_that_the_metrics_count_are_those_that_are_computed(model):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [5, 224, 224, 3], "data": [140] * 150528 * 5}
    body = json.dumps({"inputs": [tensor]}).encode()
    *_, (_, _, text) = served(model, post("/v2/models/catdog/infer", body), get("/metrics"), batch_size=4)
    found = {s.name: s.value for s in families(text)["catdog_batch_photos"].samples if s.name[-6:] != "bucket"}
    assert found == {"catdog_batch_photos_count": 2, "catdog_batch_photos_sum": 5}


# What is asked for, and photos in JSON


def encoded(*photos, **more):
    return json.dumps({"photos": [{"data": base64.b64encode(data).decode(), **more} for data in photos]}).encode()


def test_photos_in_json_get_the_verdicts_of_files(model):
    files = (photo(100), b"no photo", photo(160))
    of_json, of_form, wrapped = served(
        model,
        post("/predict", encoded(*files, name="a"), f"{JSON}; charset=utf-8"),
        post("/predict", multipart(*files), FORM),
        post("/predict", json.dumps({"photos": [{"data": base64.encodebytes(photo(160)).decode()}]}).encode(), JSON),
    )
    rows, others = (json.loads(content)["predictions"] for _, _, content in (of_json, of_form))
    assert [row.pop("name") for row in rows] == ["a"] * 3
    assert [row.pop("name") for row in others] == ["0", "1", "2"]
    assert rows == others
    (row,) = json.loads(wrapped[2])["predictions"]
    assert row == rows[2]
    assert row["probability"] == pytest.approx(probability_of_dogs(160), abs=1e-5)


WHOLE = 'body: expected a JSON object {"photos": [{"data": BASE64}]}, found '
WRONG = [
    (b"{", f"{WHOLE}no JSON."),
    (b"[" * 100_000, f"{WHOLE}no JSON."),
    (b"\xff", f"{WHOLE}no JSON."),
    (b"[1]", f"{WHOLE}list."),
    (b"{}", f"{WHOLE}nothing."),
    (b'{"images": []}', f"{WHOLE}'images'."),
    (b'{"photos": [], "x": 1}', f"{WHOLE}'photos', 'x'."),
    (b'{"photos": []}', "photos: expected a list of 1 to 16 photos, found 0."),
    (encoded(*[b"x"] * 17), "photos: expected a list of 1 to 16 photos, found 17."),
    (b'{"photos": "x"}', "photos: expected a list of 1 to 16 photos, found str."),
    (b'{"photos": ["AA=="]}', "photos[0]: expected an object with data and, if you like, a name, found str."),
    (b'{"photos": [{"name": "x"}]}', "photos[0]: expected an object with data and, if you like, a name, found 'name'."),
    (b'{"photos": [{"data": 1}]}', "photos[0].data: expected base64, found int."),
    (b'{"photos": [{"data": "AA==", "name": 1}]}', "photos[0].name: expected a text, found int."),
    (
        b'{"photos": [{"data": "data:image/png;base64,AA=="}]}',
        "photos[0].data: expected base64, found a data: address. Send what is behind its comma.",
    ),
    (b'{"photos": [{"data": "AAA"}]}', "photos[0].data: expected base64, found other text (Incorrect padding)."),
    (b'{"photos": [{"data": "A_-="}]}', "photos[0].data: expected base64, found other text ("),
    ('{"photos": [{"data": "ä"}]}'.encode(), "photos[0].data: expected base64, found other text ("),
]


@pytest.mark.parametrize(("body", "expected"), WRONG)
def test_json_that_holds_no_photos_is_refused_in_words(model, body, expected):
    (answer,) = served(model, post("/predict", body, JSON))
    status, said = error(answer)
    assert (status, said[: len(expected)]) == (400, expected)


def test_only_what_is_asked_for_is_answered(model):
    plain, more = served(model, post("/predict", photo(140)), post("/predict?include=probabilities", photo(140)))
    (row,), (longer,) = (json.loads(content)["predictions"] for _, _, content in (plain, more))
    assert row.keys() == {"class", "probability", "sure", "why"}
    probabilities = longer.pop("probabilities")
    assert longer == row
    np.testing.assert_allclose(probabilities["dogs"], row["probability"])
    for query in ("include=heatmap", "include=probabilities,heatmap", "include=", "heatmap=1"):
        (answer,) = served(model, post(f"/predict?{query}", photo(140)))
        assert error(answer) == (400, f"query: expected include=probabilities, found {query!r}.")
    compressed = error(served(model, post("/predict", photo(140), content_encoding="gzip"))[0])
    assert compressed == (415, "content-encoding: expected none, found 'gzip'. Send the body as it is.")
