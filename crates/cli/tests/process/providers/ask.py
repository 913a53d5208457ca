"""Asks with a stock provider for Python. Its first line is {url, token, way, root}; each further one is a list of
{flag, type, fallback, context}, which is answered with a list."""
import json
import logging
import os
import sys
from urllib.parse import urlsplit

sys.path.insert(0, sys.argv[1])

from openfeature import api
from openfeature.evaluation_context import EvaluationContext

logging.disable(logging.CRITICAL)


def provider(url, token, way, root):
    if way == "ofrep":
        from openfeature.contrib.provider.ofrep import OFREPProvider

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return OFREPProvider(url, headers_factory=lambda: headers)
    import grpc
    from openfeature.contrib.provider.flagd import FlagdProvider
    from openfeature.contrib.provider.flagd.config import ResolverType

    parts, credentials = urlsplit(url), None
    if parts.scheme == "https":
        with open(root, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        if token:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return FlagdProvider(
        host=parts.hostname,
        port=parts.port,
        resolver_type=ResolverType(way),
        channel_credentials=credentials,
        deadline_ms=5000,
        retry_backoff_ms=100,
        retry_backoff_max_ms=200,
        stream_deadline_ms=0,
        # A token that is not known stays so.
        fatal_status_codes=["UNAUTHENTICATED", "PERMISSION_DENIED"],
    )


def answer(ask):
    context = dict(ask["context"])
    context = EvaluationContext(targeting_key=context.pop("targetingKey", None), attributes=context)
    kinds = {"boolean": client.get_boolean_details, "string": client.get_string_details, "number": client.get_float_details}
    found = kinds[ask["type"]](ask["flag"], ask["fallback"], context)
    return {
        "value": found.value,
        "variant": found.variant,
        "reason": found.reason,
        "error": found.error_code.value if found.error_code else None,
        "metadata": dict(found.flag_metadata),
    }


begun = False
for line in sys.stdin:
    said = json.loads(line)
    if begun:
        print(json.dumps([answer(ask) for ask in said]), flush=True)
    else:
        begun = True
        try:
            # Who can't be ready falls back to what the application says.
            getattr(api, "set_provider_and_wait", api.set_provider)(provider(**said))
        except Exception:
            pass
        client = api.get_client()
        print('"asks"', flush=True)
# Threads of its own would go on.
os._exit(0)
