"""Calls methods of flagd's services by the messages that flagd itself publishes. Takes {target, token, calls: [{service, method,
request, messages}]} on standard input, and tells for each the status and what was answered: of a stream, so many messages."""
import importlib
import json
import sys

sys.path.insert(0, sys.argv[1])

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

said = json.load(sys.stdin)
metadata = [("authorization", f"Bearer {said['token']}")] if said.get("token") else []
channel = grpc.insecure_channel(said["target"])
answers = []
for call in said["calls"]:
    package, version, name = call["service"].removeprefix("flagd.").split(".")
    stubs = importlib.import_module(f"openfeature.schemas.protobuf.flagd.{package}.{version}.{package}_pb2_grpc")
    messages = importlib.import_module(f"openfeature.schemas.protobuf.flagd.{package}.{version}.{package}_pb2")
    request = getattr(messages, call["method"] + "Request")()
    ParseDict(call["request"], request)
    method = getattr(getattr(stubs, f"{name}Stub")(channel), call["method"])
    try:
        answer = method(request, metadata=metadata, timeout=30)
        if "messages" in call:
            answer = [MessageToDict(message) for _, message in zip(range(call["messages"]), answer)]
        else:
            answer = MessageToDict(answer)
        answers.append({"status": "OK", "answer": answer})
    except grpc.RpcError as error:
        answers.append({"status": error.code().name, "why": error.details()})
print(json.dumps(answers))
