"""The routes of the page, and attacks on each of the rules that keep others out."""

from __future__ import annotations

import asyncio
import json

import cv2
import numpy as np
import pytest
from page_samples import FROM_PAGE, HEIGHT, HOST, N_FRAMES, WIDTH

from posewarper.errors import OutputError
from posewarper.review.server import Gate, bind
from posewarper.review.shown import COLUMNS, PLACED

PLACE = {"op": "place", "track": 0, "frame": 3, "keypoint": 0, "xy": [1.5, 2.5]}
READS = ("session", "poses", "timeline", "doubts", "skeletons", "events")
CHANGES = ("edits", "run", "cancel", "doubts", "suggest", "enter")


def edit(page, *operations, base=None, name="one"):
    base = page.get("/api/session").json()["revision"] if base is None else base
    return page.post("/api/edits", json={"id": name, "base": base, "operations": list(operations)})


# --- who may ask ---


def test_nothing_is_told_without_the_cookie(stranger):
    for name in READS:
        assert stranger.get(f"/api/{name}").status_code == 401
    assert stranger.get("/frame/0.jpg").status_code == 401
    for name in ("edits", "run", "cancel", "doubts", "suggest"):
        assert stranger.post(f"/api/{name}", json={}, headers=FROM_PAGE).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "ü", "0" * 32])
def test_a_wrong_token_gives_no_cookie(stranger, token):
    answer = stranger.post("/api/enter", json={"token": token}, headers=FROM_PAGE)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers


def test_the_token_counts_once(stranger):
    token = stranger.gate.token
    first = stranger.post("/api/enter", json={"token": token}, headers=FROM_PAGE)
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "8123" in cookie
    stranger.cookies.clear()
    again = stranger.post("/api/enter", json={"token": token}, headers=FROM_PAGE)
    assert again.status_code == 401 and "set-cookie" not in again.headers


def test_a_wrong_cookie_opens_nothing(stranger):
    for value in ("", "x", "%00", "a" * 43):
        headers = {"Cookie": f"posewarper_8123={value}"}
        assert stranger.get("/api/session", headers=headers).status_code == 401


def test_tokens_and_cookies_differ():
    gates = [Gate(1) for _ in range(3)]
    assert len({gate.token for gate in gates}) == 3
    assert all(len(gate.token or "") >= 32 for gate in gates)
    assert gates[0].exchange(gates[1].token or "") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8123",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8123",
        "127.0.0.1@evil.example",
        "127.0.0.2",
        "0.0.0.0:8123",
        "",
        "127.0.0.1:8123/x",
    ],
)
def test_other_hosts_are_refused(page, host):
    """A page elsewhere can let its name point to 127.0.0.1; the browser then names that host."""
    for path in ("/", "/api/session", "/frame/0.jpg"):
        assert page.get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8123", "127.0.0.1", "LOCALHOST:9000", "[::1]:8123"])
def test_loopback_hosts_are_taken_also_through_a_tunnel(page, host):
    assert page.get("/api/session", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:8124",
        "https://127.0.0.1:8123",
        f"http://{HOST}.x",
        None,
    ],
)
def test_changes_come_from_the_page_alone(page, path, origin):
    page.headers.pop("Origin")
    headers = {} if origin is None else {"Origin": origin}
    answer = page.post(f"/api/{path}", json={}, headers=headers)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_cannot_even_read(page, site):
    """Another server on the same machine is the same site: cookies alone would let its pages in."""
    for path in ("/api/session", "/frame/0.jpg", "/api/events"):
        assert page.get(path, headers={"Sec-Fetch-Site": site}).status_code == 403
    assert page.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200
    # A link may lead here, a frame or a script of another page may not take it in.
    for dest, status in (("document", 200), ("iframe", 403), ("script", 403), ("empty", 403)):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
        assert page.get("/", headers=headers).status_code == status
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}
    assert page.get("/api/session", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_only_json_is_taken(page, kind):
    """Forms of other pages can send anything else without asking."""
    body = json.dumps({"id": "x", "base": 0, "operations": [PLACE]})
    answer = page.post("/api/edits", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(page, method):
    for path in ("/", "/api/edits", "/frame/0.jpg"):
        assert page.request(method, path).status_code in (400, 403, 405, 415)


def test_every_answer_is_marked(page):
    for path in ("/", "/page.js", "/api/session", "/frame/0.jpg", "/nowhere"):
        headers = page.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
    assert page.get("/api/session").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/page.js",
        "/page.js/../../session.py",
        "/frame/..%2f..%2fetc%2fpasswd.jpg",
        "/frame/0.jpg/../../x",
        "/frame/0.svg",
        "/frame/-1.jpg",
        "/frame/1e3.jpg",
        f"/frame/{N_FRAMES}.jpg",
        "/frame/99999999999999999999.jpg",
        "//etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(page, path):
    answer = page.get(path)
    assert answer.status_code in (400, 404)
    assert b"root:" not in answer.content


def test_the_page_loads_nothing_from_elsewhere(page):
    text = page.get("/").text + page.get("/page.css").text
    assert "http://" not in text and "https://" not in text and "//" not in text.replace("://", "")
    assert "<script>" not in text and " style=" not in text and " onclick" not in text
    script = page.get("/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert len(script.content) < 150_000


def test_a_request_has_limits(page):
    long = json.dumps({"id": "x", "base": 0, "operations": [PLACE | {"op": "p" * 2**20}]})
    assert page.post("/api/edits", content=long).status_code == 413
    many = {"id": "x", "base": 0, "operations": [PLACE] * 10_001}
    assert page.post("/api/edits", json=many).status_code in (400, 413)
    assert page.post("/api/edits", content="[" * 100_000).status_code == 400
    assert page.get(f"/api/poses?from=0&to={10**9}").status_code == 400
    assert page.get("/api/session").json()["revision"] == 1, "the skeleton alone"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{",
        '{"id": "x"}',
        '{"id": 3, "base": 1, "operations": []}',
        '{"id": "x", "base": true, "operations": []}',
        '{"id": "x", "base": 1, "operations": [3]}',
        '{"id": "x", "base": 1, "operations": [], "path": "/etc/passwd"}',
        '{"id": "x", "base": 1, "operations": [{"op": "place", "xy": [NaN, 1]}]}',
        "\\ud800",
        '{"id": "x", "base": 1, "operations": [{"op": "rename", "track": 0, "name": "\\ud800"}]}',
    ],
)
def test_bodies_that_are_none_are_refused(page, body):
    assert page.post("/api/edits", content=body).status_code == 400


def test_a_browser_that_leaves_in_the_middle_of_a_request_is_no_error(page):
    names = {"host": HOST, **FROM_PAGE, "cookie": f"posewarper_8123={page.cookies['posewarper_8123']}"}
    headers = [(name.lower().encode(), value.encode()) for name, value in names.items()]
    scope = {"type": "http", "method": "POST", "path": "/api/edits", "query_string": b"", "headers": headers}

    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        assert message.get("status") in (None, 400)

    asyncio.run(page.app(scope, gone, send))  # without an exception, which the server would print


# --- what it answers ---


def test_frames_are_those_of_our_decoder(page):
    for index in (0, 5, 11, 4):
        answer = page.get(f"/frame/{index}.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert abs(float(image.mean()) - 20 * index) < 4


def test_a_part_of_a_frame_and_png(page):
    answer = page.get("/frame/5.png?crop=10,20,30,999")
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert answer.headers["content-type"] == "image/png" and image.shape == (HEIGHT - 20, 30, 3)
    for crop in ("1,2,3", "-1,0,5,5", "a,b,c,d", "1,2,3,4,5", "../x"):
        assert page.get(f"/frame/5.png?crop={crop}").status_code == 400
    for crop in ("0,0,0,5", "640,0,5,5"):
        assert page.get(f"/frame/5.png?crop={crop}").status_code == 404


def test_a_frame_that_is_known_is_not_sent_again(page):
    answer = page.get("/frame/5.jpg")
    assert "immutable" in answer.headers["cache-control"] and "private" in answer.headers["cache-control"]
    tag = answer.headers["etag"]
    assert page.get("/frame/5.jpg", headers={"If-None-Match": tag}).status_code == 304
    assert page.get("/frame/6.jpg", headers={"If-None-Match": tag}).status_code == 200
    assert page.get("/frame/5.jpg?crop=0,0,5,5").headers["etag"] != tag


def test_an_edit_is_shown_and_saved(page, session):
    answer = edit(page, PLACE).json()
    assert answer["revision"] == 2 and answer["frames"] == [3] and answer["undo"].startswith("place nose")
    block = np.frombuffer(page.get("/api/poses?from=2&to=4").content, np.float32).reshape(3, 1, 3, COLUMNS)
    assert block[1, 0, 0].tolist()[:2] == [1.5, 2.5] and block[1, 0, 0, -1] == PLACED
    assert (block[[0, 2], ..., -1] == 0).all()
    assert '"xy"' not in session.log.path.read_text()
    assert "[1.5,2.5,2]" in session.log.path.read_text()


def test_an_edit_that_is_sent_twice_counts_once(page):
    first = edit(page, PLACE, base=1, name="same").json()
    second = edit(page, PLACE, base=1, name="same").json()
    assert first == second
    assert page.get("/api/session").json()["revision"] == 2


def test_a_page_that_is_behind_is_told_so(page):
    edit(page, PLACE, base=1, name="a")
    answer = edit(page, PLACE | {"frame": 4}, base=1, name="b")
    assert answer.status_code == 409 and answer.json()["revision"] == 2


def test_what_makes_no_sense_is_refused_in_words(page):
    answer = edit(page, PLACE | {"frame": N_FRAMES})
    assert answer.status_code == 422 and "no frame 12" in answer.json()["problem"]
    assert page.post("/api/cancel", json={}).status_code == 422
    assert page.post("/api/run", json={"effort": "fast"}).json()["problem"].startswith("nothing is labelled")
    assert page.post("/api/doubts", json={"id": "x", "status": "done"}).status_code == 422


def test_a_full_disk_is_said_and_changes_nothing(page, session, monkeypatch):
    def full(entry):
        raise OSError(28, "No space left on device", "edits.jsonl")

    with monkeypatch.context() as patched:
        patched.setattr(session.log, "_append", full)
        answer = edit(page, PLACE)
    assert answer.status_code == 507 and "No space left" in answer.json()["problem"]
    assert page.get("/api/session").json()["revision"] == 1
    assert edit(page, PLACE, name="again").status_code == 200


def test_a_video_that_has_moved_is_said(page, clip, tmp_path):
    away = tmp_path / "away.mp4"
    clip.rename(away)
    try:
        answer = page.get("/frame/9.jpg")
    finally:
        away.rename(clip)
    assert answer.status_code == 500 and "not there any more" in answer.json()["problem"]
    assert page.get("/frame/9.jpg").status_code == 200


def test_a_port_that_is_taken_is_said():
    with bind(0) as listener:
        listener.listen()
        assert listener.getsockname()[0] == "127.0.0.1"
        with pytest.raises(OutputError, match="cannot be used"):
            bind(listener.getsockname()[1])
