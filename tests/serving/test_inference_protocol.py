"""The Open Inference Protocol with its extensions: what is sent in binary, what is refused, and Triton's own client."""

import json
import struct

import numpy as np
import pytest
from helpers.models import probability_of_dogs, tiny_model
from helpers.serving import ask, conversation, started

from catdog_jax.config import ServeConfig
from catdog_jax.photos.recipe import DEFAULT, DecodingRecipe
from catdog_jax.runtime.predictor import Predictor

protocol = pytest.importorskip("catdog_jax.serving.inference_protocol")
app = pytest.importorskip("catdog_jax.serving.app", reason="the extra `serve` is not installed")

SIZE = 224 * 224 * 3
BINARY = {"parameters": {"binary_data_size": SIZE}}
PIXELS = bytes([140]) * SIZE


def body(behind=PIXELS, inputs=BINARY, **more):
    """A request in binary and the length of its JSON."""
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 224, 224, 3], **inputs}
    head = json.dumps({"inputs": [image], **more}).encode()
    return head + behind, str(len(head))


def decoded(data, *lengths, outputs=("probability", "heatmap"), recipe=DEFAULT):
    return protocol.decode_request(data, lengths, 4, [*outputs], recipe)


def test_a_tensor_in_binary_is_that_in_json():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    data, length = body(pixels.tobytes(), {"shape": [2, 224, 224, 3], "parameters": {"binary_data_size": 2 * SIZE}})
    found = decoded(data, length)
    np.testing.assert_array_equal(found.photos, pixels)
    assert found.photos.dtype == np.uint8
    assert found.outputs == [("probability", False, 0), ("heatmap", False, 0)]
    data = json.dumps({"inputs": [{**protocol.INPUT, "shape": [*pixels.shape], "data": pixels.tolist()}]}).encode()
    np.testing.assert_array_equal(decoded(data).photos, pixels)
    np.testing.assert_array_equal(decoded(data, str(len(data))).photos, pixels)


def test_photos_have_the_size_of_the_models_recipe():
    recipe = DecodingRecipe(size=320, resize="crop")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 320, 320, 3), np.uint8)
    head = {"shape": [2, 320, 320, 3], "parameters": {"binary_data_size": pixels.nbytes}}
    data, length = body(pixels.tobytes(), head)
    np.testing.assert_array_equal(decoded(data, length, recipe=recipe).photos, pixels)
    message = r"inputs\[0\].shape: expected \[N, 320, 320, 3\] with N from 1 to 4, found \[1, 224, 224, 3\]"
    with pytest.raises(protocol.ProtocolError, match=message):
        decoded(*body(), recipe=recipe)
    told = protocol.model_metadata(["probability", "heatmap"], recipe)
    assert [one["shape"] for one in told["inputs"] + told["outputs"]] == [[-1, 320, 320, 3], [-1, 2], [-1, 10, 10]]
    assert protocol.most_photos(16, 2**20, recipe, binary=True) == 3
    assert protocol.most_photos(16, 2**20, recipe, binary=False) == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"parameters": {"binary_data_output": True}}, [("probability", True, 0), ("heatmap", True, 0)]),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "heatmap"}, {"name": "probability", "parameters": {"binary_data": False}}],
            },
            [("heatmap", True, 0), ("probability", False, 0)],
        ),
        (
            {"outputs": [{"name": "probability", "parameters": {"binary_data": True, "classification": 2}}]},
            [("probability", True, 2)],
        ),
        ({"parameters": {}, "outputs": []}, [("probability", False, 0), ("heatmap", False, 0)]),
        ({"parameters": None}, [("probability", False, 0), ("heatmap", False, 0)]),
    ],
)
def test_each_output_comes_as_it_is_asked_for(more, expected):
    data, length = body(**more)
    assert decoded(data, length).outputs == expected


def read(content, length):
    """A client of its own, by the words of the specification: each output's shape, type and values."""
    answer, behind = json.loads(content[:length]), content[length:]
    found = {}
    for output in answer["outputs"]:
        values = output.get("data")
        if values is None:
            size = output["parameters"]["binary_data_size"]
            part, behind = behind[:size], behind[size:]
            if output["datatype"] == "FP32":
                values = [*struct.unpack(f"<{size // 4}f", part)]
            else:
                values = []
                while part:
                    (count,) = struct.unpack("<I", part[:4])
                    values.append(part[4 : 4 + count].decode())
                    part = part[4 + count :]
        found[output["name"]] = output["datatype"], output["shape"], values
    assert behind == b""
    return found


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_an_answer_is_what_the_specification_says(binary):
    probabilities = np.float32([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])
    heatmaps = np.arange(147, dtype=np.float32).reshape(3, 7, 7) / 7
    for classes in (0, 1, 2):
        outputs = [protocol.Output("heatmap", binary), protocol.Output("probability", not binary, classes)]
        asked = protocol.Inference("é", np.zeros(0), outputs)
        content, length = protocol.encode_response(
            asked, {"probability": probabilities, "heatmap": heatmaps}, ("kätzchen", "dogs")
        )
        found = read(content, length)
        assert json.loads(content[:length])["id"] == "é"
        assert found["heatmap"] == ("FP32", [3, 7, 7], heatmaps.ravel().tolist())
        if not classes:
            assert found["probability"] == ("FP32", [3, 2], probabilities.ravel().tolist())
            continue
        texts = ["0.750000:1:dogs", "0.250000:0:kätzchen", "0.500000:0:kätzchen", "0.500000:1:dogs"]
        texts += ["0.900000:0:kätzchen", "0.100000:1:dogs"]
        assert found["probability"] == ("BYTES", [3, classes], texts[:: 3 - classes])
    only = protocol.Inference(None, np.zeros(0), [protocol.Output("probability")])
    content, length = protocol.encode_response(only, {"probability": probabilities}, ("cats", "dogs"))
    assert length is None
    assert json.loads(content).keys() == {"model_name", "model_version", "outputs"}


def sent(expected, *arguments, **more):
    """A request with a true header: its bytes, what the header tells, and what is said of it."""
    data, length = body(*arguments, **more)
    return data, [length], expected


def told(length, expected=f"{protocol.HEADER}: expected the length of the JSON, 1 to "):
    """A good request with another header."""
    return body()[0], [length], expected


def best(count, output="probability"):
    return [{"name": output, "parameters": {"classification": count}}]


NO_JSON = "body: expected a JSON object, found something else."
BYTES_OF = "inputs[0].parameters.binary_data_size: expected "
SHAPE = "inputs[0].shape: expected [N, 224, 224, 3] with N from 1 to 4, found "
CLASSES = "outputs[0].parameters.classification: expected "
LENGTHS = ("", "-1", "0", "1e3", "0x10", "+9", "9" * 5000, str(2**64), "200000000", "١٢", "nan")
SIZES = (-1, 0, 1, SIZE - 1, SIZE + 1, 2**31, 2**63, 2**64 + SIZE, 10**300, float(SIZE), True, "150528", None, [])
SHAPES = (
    *([2**62, 224, 224, 3], [-1, 224, 224, 3], [0, 224, 224, 3], [5, 224, 224, 3], [1.0, 224, 224, 3], [SIZE]),
    *([2**32, 2**32], [1, 224, 224, 3, 1], [True, 224, 224, 3], [1, 224, 224, -3], "1", None),
)
SHARED = {"parameters": {"shared_memory_region": "a"}}
WRONG = {
    "no header": (body()[0], [], f"{NO_JSON} Bytes behind it need the header Inference-Header-Content-Length."),
    "two headers": (body()[0], ["9", "9"], f"{protocol.HEADER}: expected the length of the JSON, 1 to "),
    **{f"a length of {length[:9]!r}": told(length) for length in LENGTHS},
    "a length within the JSON": told("20", NO_JSON),
    "a length beyond the JSON": told("9000", NO_JSON),
    **{
        f"a size of {str(size)[:30]!r}": sent(
            f"{BYTES_OF}150,528, the bytes of this shape, found {str(size)[:100]!r}.",
            inputs={"parameters": {"binary_data_size": size}},
        )
        for size in SIZES
    },
    **{
        f"{len(behind):,} bytes": sent(
            f"body: expected 150,528 bytes behind the JSON, found {len(behind):,}.",
            behind,
        )
        for behind in (b"", PIXELS[1:], PIXELS + b"x", PIXELS * 2)
    },
    "bytes of nobody": sent(
        f"{BYTES_OF}150,528, found none, and 150,528 bytes behind the JSON.", inputs={"data": [1] * SIZE}
    ),
    "twice": sent(f"{BYTES_OF}it or inputs[0].data, found both.", inputs={**BINARY, "data": [1] * SIZE}),
    **{
        f"the type {kind!r}": sent(
            f"inputs[0].datatype: expected 'UINT8', found {str(kind)!r}.", inputs={**BINARY, "datatype": kind}
        )
        for kind in ("BYTES", "FP32", "UINT128", "uint8", "BOOL", None, 8)
    },
    **{f"the shape {shape}": sent(SHAPE, inputs={**BINARY, "shape": shape}) for shape in SHAPES},
    "a sequence": sent(
        "parameters: expected binary_data_output, found 'sequence_id'. Leave it out.", parameters={"sequence_id": 1}
    ),
    "a timeout": sent(
        "parameters: expected binary_data_output, found 'timeout'. Leave it out.",
        parameters={"timeout": 1, "binary_data_output": True},
    ),
    "shared memory in": sent(
        "inputs[0].parameters: expected binary_data_size, found 'shared_memory_region'. Leave it out.", inputs=SHARED
    ),
    "shared memory out": sent(
        "outputs[0].parameters: expected binary_data or classification, found 'shared_memory_region'. Leave it out.",
        outputs=[{"name": "probability", **SHARED}],
    ),
    "parameters of no name": sent("parameters: expected an object, found list.", parameters=[1]),
    **{
        f"{count!r} classes": sent(f"{CLASSES}a number of classes, 1 to 2, found {str(count)!r}.", outputs=best(count))
        for count in (0, -1, 3, 2**63, 1.0, True, "1", None)
    },
    "classes of a heat map": sent(
        f"{CLASSES}it for probability alone, found it for heatmap.", outputs=best(1, "heatmap")
    ),
    "a flag that is none": sent(
        "parameters.binary_data_output: expected true or false, found '1'.", parameters={"binary_data_output": 1}
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_lies_is_refused_in_words(case):
    data, lengths, expected = WRONG[case]
    with pytest.raises(protocol.ProtocolError) as caught:
        decoded(data, *lengths)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("protocol") / "model.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


def test_the_server_answers_in_binary_at_both_paths(model):
    application = app.application(Predictor(model), ServeConfig())
    data, length = body(parameters={"binary_data_output": True}, id="7")
    expected = probability_of_dogs(140)
    sized = {protocol.HEADER: length}
    wrong = {protocol.HEADER: "9" * 30}
    *answers, refused, gone = conversation(
        application,
        *(((f"{path}/infer", data, "application/octet-stream"), sized) for path in protocol.PATHS),
        ((f"{protocol.PATH}/infer", data, "application/octet-stream"), wrong),
        (("/v2/models/catdog/versions/2/infer", data), sized),
    )
    for status, headers, content in answers:
        assert (status, headers[b"content-type"]) == (200, b"application/octet-stream")
        found = read(content, int(headers[protocol.HEADER.encode()]))
        assert found["probability"][:2] == ("FP32", [1, 2])
        np.testing.assert_allclose(found["probability"][2], [1 - expected, expected], atol=1e-5)
    assert refused[0] == 400
    assert json.loads(refused[2])["error"].startswith(f"{protocol.HEADER}: expected the length of the JSON")
    assert (gone[0], json.loads(gone[2])["error"]) == (404, "version: expected '1', found '2'.")


def test_health_and_metadata_have_the_fields_of_the_protocol(model):
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/catdog/ready", "/v2", "/v2/models/catdog/versions/1")
    application = app.application(Predictor(model), ServeConfig())
    live, ready, of_model, server, metadata = (
        json.loads(content) for _, _, content in conversation(application, *(((path,), {}) for path in paths))
    )
    assert (live, ready, of_model) == ({"live": True}, {"ready": True}, {"name": "catdog", "ready": True})
    assert server["extensions"] == ["binary_tensor_data", "classification"]
    assert (metadata["name"], metadata["versions"]) == ("catdog", ["1"])


def test_tritons_client_works_with_its_defaults(model):
    reason = "needs Triton's client: pip install --no-deps tritonclient, and then what its [http] names"
    http = pytest.importorskip("tritonclient.http", reason=reason)
    utils = pytest.importorskip("tritonclient.utils")
    pixels = np.stack([np.full((224, 224, 3), grey, np.uint8) for grey in (100, 140, 160)])
    expected = np.array([[1 - p, p] for p in map(probability_of_dogs, (100, 140, 160))])
    with started(model, "--root-path", "/below/here/") as url:
        for address in (url.removeprefix("http://"), f"{url.removeprefix('http://')}/below/here"):
            with http.InferenceServerClient(address) as client:
                assert client.is_server_live()
                assert client.is_server_ready()
                assert client.is_model_ready("catdog")
                assert client.is_model_ready("catdog", "1")
                assert not client.is_model_ready("other")
                assert client.get_server_metadata()["name"] == "catdog_jax"
                (described,) = client.get_model_metadata("catdog")["inputs"]
                image = http.InferInput(described["name"], [*pixels.shape], described["datatype"])
                for binary in (True, False):
                    image.set_data_from_numpy(pixels, binary_data=binary)
                    found = client.infer("catdog", [image]).as_numpy("probability")
                    assert found.dtype == np.float32
                    np.testing.assert_allclose(found, expected, atol=1e-5)
                    for version, back in (("", True), ("1", False)):
                        best = http.InferRequestedOutput("probability", binary_data=back, class_count=1)
                        answer = client.infer("catdog", [image], version, outputs=[best], request_id="7")
                        said = [text.decode() if back else text for text in answer.as_numpy("probability").ravel()]
                        assert [text.split(":")[1:] for text in said] == [["0", "cats"], ["1", "dogs"], ["1", "dogs"]]
                        assert answer.get_response()["id"] == "7"
                waiting = [client.async_infer("catdog", [image]) for _ in range(3)]
                for one in waiting:
                    np.testing.assert_allclose(one.get_result().as_numpy("probability"), expected, atol=1e-5)
                with pytest.raises(
                    utils.InferenceServerException, match="expected binary_data_output, found 'priority'"
                ):
                    client.infer("catdog", [image], priority=1)
                with pytest.raises(
                    utils.InferenceServerException, match="content-encoding: expected none, found 'gzip'"
                ):
                    client.infer("catdog", [image], request_compression_algorithm="gzip")
        assert b'catdog_verdicts_total{class="dogs",sure="unknown"}' in ask(f"{url}/metrics")[1]
