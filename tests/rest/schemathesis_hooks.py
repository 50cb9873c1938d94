"""What Schemathesis, which loads this, is to know of the resource that no schema can tell."""

from __future__ import annotations

import schemathesis


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """True for what is a failure."""
    if response.status_code == 403 and response.headers["content-type"][0].startswith("text/html"):
        # Django's protection against cross-site requests answers before the resource.
        return False
    match failure.code:
        case "ST201":
            # It took what isn't described. By RFC 9110 section 13.2.1 a precondition comes first.
            return response.status_code != 412
        case "ST202":
            # It refused what is described.
            return not depends_on_what_is_there(response, case)
    return True


def depends_on_what_is_there(response, case):
    """Whether a request was refused for what the resource holds, or for what Unicode says."""
    if response.status_code == 412:
        return True
    problem = response.json()
    if problem["type"].endswith("idempotency-key-reused"):
        return True
    faults = problem.get("errors", [])
    return bool(faults) and all(is_such(fault["field"], case) for fault in faults)


def is_such(field, case):
    match field.partition("."):
        case "cursor", _, _:
            # Only those that a page gave are cursors.
            return True
        case "headers", _, name:
            # Null keeps a value, where there is one; and names that differ in case are the same.
            headers = case.body["headers"]
            return headers[name] is None or [*map(str.lower, headers)].count(name.lower()) > 1
        case "url", _, _:
            # It grows when it is encoded.
            return len(case.body["url"]) > 2000
        case "hmac_secret", _, _:
            return not case.body["hmac_secret"].isprintable()
        case "owner", _, _:
            return not case.query["owner"].isprintable()
    return False
