"""A chat beside the progress: whoever watches a document may say something about it, and all who watch it hear that."""

import pulumi
from docprogress_infra import DocumentProgress, LambdaFunction, LambdaFunctionArgs, Publishing


def routes(publishing: Publishing) -> dict[str, LambdaFunction]:
    say = LambdaFunction(
        "say",
        LambdaFunctionArgs(handler_module="say.py", environment=publishing.announcer_environment, timeout_seconds=10),
    )
    publishing.grant_announcer(say)
    return {"say": say}


progress = DocumentProgress("progress", {"disposable": True}, routes=routes)
pulumi.export("websocketUrl", progress.url)
