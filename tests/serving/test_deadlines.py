"""What `deadlines` relies on in the installed uvicorn and h11, whose documentation does not promise it.

What it does with that is held by `test_app`, through real sockets. A failure here says that an
upgrade has moved something: look at `uvicorn/protocols/http/h11_impl.py` beside `deadlines`, then
change both.
"""

import ast
import asyncio
import inspect
import textwrap

import pytest

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
import h11
import uvicorn
from uvicorn.protocols.http import flow_control, h11_impl
from uvicorn.server import ServerState

from catdog_jax.serving import deadlines

OVERRIDDEN = {  # method -> its parameters
    "connection_made": ["transport"],
    "connection_lost": ["exc"],
    "data_received": ["data"],
    "on_response_complete": [],
    "pause_writing": [],
    "resume_writing": [],
    "send_400_response": ["msg"],
}
READ = {"conn", "cycle", "flow", "loop", "transport"}  # attributes of a connection
OWN = {"seconds", "_timer", "_deaf", "_too_late"}


def attributes(tree: ast.AST, of: str = "self") -> set[str]:
    """The attributes of a name, but for methods that are called."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in called)
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == of}


def source(function: object) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]


def test_these_lists_are_complete():
    """Otherwise `deadlines` could come to rely on something that no test here holds."""
    methods = {name for name in vars(deadlines._Connection) if hasattr(h11_impl.H11Protocol, name)}
    assert {name for name in methods if not name.startswith("__")} == {*OVERRIDDEN}
    assert attributes(source(deadlines._Connection)) - OWN == READ


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_uvicorn_has_the_methods_that_are_overridden(name):
    parameters = [*inspect.signature(getattr(h11_impl.H11Protocol, name)).parameters][1:]
    assert parameters == OVERRIDDEN[name], f"uvicorn {uvicorn.__version__}: {name} takes other arguments"


def test_uvicorn_calls_those_that_are_no_protocol_of_asyncios():
    """A method that is renamed would be overridden in vain: nothing else would fail, but for a deadline that never comes."""
    of_asyncio = {name for name in OVERRIDDEN if hasattr(asyncio.Protocol, name)}
    of_uvicorn = OVERRIDDEN.keys() - of_asyncio
    assert of_uvicorn == {"on_response_complete", "send_400_response"}
    events = source(h11_impl.H11Protocol.handle_events)
    assert "on_response_complete" in attributes(events), "an answer's end starts no deadline"
    assert "self.send_400_response(msg)" in ast.unparse(events), "a bad request gets uvicorn's answer, not JSON"


def connection() -> deadlines._Connection:
    async def application(scope, receive, send):
        raise AssertionError

    config = uvicorn.Config(application, http=deadlines.bounded(1.0), ws="none")
    config.load()
    return config.http_protocol_class(config=config, server_state=ServerState(), app_state={}, _loop=loop())


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_connection_has_the_attributes_that_are_read():
    async def made():
        return connection()

    new = asyncio.run(made())
    assert isinstance(new, h11_impl.H11Protocol), "uvicorn.Config(http=CLASS) takes no class any more"
    assert vars(new).keys() >= READ, f"uvicorn {uvicorn.__version__}: a connection lacks {READ - vars(new).keys()}"
    assert isinstance(new.conn, h11.Connection)
    assert new.cycle is None, "a connection without a request counts as idle by this"
    assert new.conn.our_state is h11.IDLE
    new.conn.receive_data(b"GET / HT")
    assert new.conn.next_event() is h11.NEED_DATA
    assert new.conn.trailing_data[0] == b"GET / HT", "half of the headers counts as such by this"


def test_an_answer_and_a_reader_that_does_not_read_have_their_flags():
    cycle = source(h11_impl.RequestResponseCycle)
    assert "response_complete" in attributes(cycle)
    assert "self.response_complete = True" in ast.unparse(cycle)
    flow = flow_control.FlowControl(None)  # type: ignore[arg-type]
    assert flow.write_paused is False
    flow.pause_writing()
    assert flow.write_paused is True
    flow.resume_writing()
    assert flow.write_paused is False
