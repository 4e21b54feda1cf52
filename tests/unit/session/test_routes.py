"""The server's routes and their published description are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

from kobox.session import faults, routes
from kobox.session.events import KINDS
from kobox.session.places import API
from kobox.session.server import Api, openapi_text

DOCUMENT = json.loads(openapi_text())


def described() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}


def test_every_route_is_described_and_every_description_is_served() -> None:
    assert {(route.method, route.path) for route in routes.ROUTES} == described()


def test_the_application_serves_exactly_these_below_the_version() -> None:
    served = {
        (route.method, route.resource.canonical)
        for route in Api(None).application().router.routes()  # type: ignore[arg-type,union-attr]
        if route.method != "HEAD"
    }
    assert served == {(method, f"/v{API}{path}") for method, path in described()}
    assert DOCUMENT["info"]["version"] == str(API)


def test_every_answer_and_every_reference_is_described() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', openapi_text()):
        assert reference in schemas
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            assert {"200", "default"} == set(operation["responses"])
            assert operation["summary"]


def test_parts_of_paths_are_described_as_parameters() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))


def test_kinds_of_events_and_errors_are_those_of_the_code() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas["Event"]["properties"]["type"]["enum"]) == set(KINDS)
    errors = {*faults._PLAIN, *faults._HEAVY, "Errno", "BadFile"}
    assert set(schemas["Error"]["properties"]["error"]["properties"]["type"]["enum"]) == errors


def test_every_kind_of_event_is_in_the_page_about_sessions() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sessions.md").read_text()
    for kind in KINDS:
        assert f"`{kind}`" in page
    for method, path in described():
        assert f"`{method} {path}`" in page
