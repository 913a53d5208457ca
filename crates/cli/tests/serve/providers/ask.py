"""Asks with the stock provider for Python. Takes {url, token, ask: [{flag, type, fallback, context}]} on standard input."""
import json
import sys

sys.path.insert(0, sys.argv[1])

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

asked = json.load(sys.stdin)
headers = {"Authorization": f"Bearer {asked['token']}"} if asked.get("token") else {}
api.set_provider(OFREPProvider(asked["url"], headers_factory=lambda: headers))
client = api.get_client()
answers = []
for ask in asked["ask"]:
    context = dict(ask["context"])
    context = EvaluationContext(targeting_key=context.pop("targetingKey", None), attributes=context)
    details = client.get_boolean_details if ask["type"] == "boolean" else client.get_string_details
    found = details(ask["flag"], ask["fallback"], context)
    answers.append({
        "value": found.value,
        "variant": found.variant,
        "reason": found.reason,
        "error": found.error_code.value if found.error_code else None,
        "metadata": dict(found.flag_metadata),
    })
api.shutdown()
print(json.dumps(answers))
