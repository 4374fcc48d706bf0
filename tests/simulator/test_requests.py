"""Keys in four forms, and paths that lead nowhere."""

import pytest

BODY = {"contents": [{"parts": [{"text": "A red mug"}]}]}
PATH = "/v1beta/models/gemini-2.5-flash-image:generateContent"


@pytest.mark.parametrize(
    ("headers", "params"),
    [
        pytest.param({"x-goog-api-key": "sk-a"}, None, id="google-header"),
        pytest.param({"Authorization": "sk-a"}, None, id="bare-authorization"),
        pytest.param({"Authorization": "Bearer sk-a"}, None, id="bearer"),
        pytest.param(None, {"key": "sk-a"}, id="query"),
    ],
)
async def test_a_key_is_taken_in_each_of_four_forms(start, headers, params):
    asker = await start()
    heard = await asker.post(PATH, body=BODY, headers=headers, params=params)
    assert heard.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(None, id="H14-missing"),
        pytest.param({"Authorization": ""}, id="H14-empty"),
        pytest.param({"Authorization": "Bearer "}, id="H14-bearer-alone"),
        pytest.param({"x-goog-api-key": "  "}, id="H14-blank"),
    ],
)
async def test_without_a_key_the_gateway_answers_401(start, headers):
    heard = await (await start()).post(PATH, body=BODY, headers=headers)
    assert heard.status == 401
    assert heard.error["type"] == "comet_api_error"
    assert heard.error["message"].startswith("Invalid token (request id: 20")
    assert "param" not in heard.error


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        pytest.param("POST", "/v1beta/models/x:batchGenerateContent", 404, "json", id="H18-unknown-verb"),
        pytest.param("POST", "/v1/chat/nothing", 404, "json", id="H18-unknown-path"),
        pytest.param("GET", PATH, 404, "json", id="H18-wrong-method"),
        pytest.param("POST", PATH + "/", 301, "html", id="H22-trailing-slash"),
        pytest.param("POST", "/models/gemini-2.5-flash-image:generateContent", 301, "html", id="H22-no-version"),
        pytest.param("POST", "/", 200, "html", id="H45-root"),
        pytest.param("POST", "/api/generate", 200, "html", id="H45-elsewhere"),
    ],
)
async def test_a_wrong_path_answers_as_the_gateway_does(start, method, path, status, kind):
    heard = await (await start()).post(path, body=BODY, headers={"x-goog-api-key": "k"}, method=method)
    assert (heard.status, "text/html" in heard.headers["Content-Type"]) == (status, kind == "html")
    if status == 404:
        assert heard.error["message"].startswith(f"Invalid URL ({method} ")


async def test_models_are_listed_in_the_openai_shape(start):
    heard = await (await start()).post("/v1/models", headers={"Authorization": "k"}, body=None, method="GET")
    assert heard.json["object"] == "list"
    assert "gemini-2.5-flash-image" in {model["id"] for model in heard.json["data"]}


async def test_the_openai_route_refuses_these_models(start):
    heard = await (await start()).post("/v1/images/generations", body={"model": "x"})
    assert (heard.status, heard.error["code"]) == (500, "convert_request_failed")
