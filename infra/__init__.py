"""The components, for Pulumi programs in Python.

```python
from docprogress_infra import DocumentProgress

progress = DocumentProgress("progress", {"allowed_origins": ["https://app.example.com"]})
progress.grant_worker(worker_role)
```
"""

from .document_pipeline import DocumentPipeline, DocumentPipelineArgs
from .document_progress import DocumentProgress, DocumentProgressArgs
from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .publishing import Publishing
from .websocket_api import WebSocketApi, WebSocketApiArgs

__all__ = [
    "DocumentPipeline",
    "DocumentPipelineArgs",
    "DocumentProgress",
    "DocumentProgressArgs",
    "FunctionSettings",
    "LambdaFunction",
    "LambdaFunctionArgs",
    "Publishing",
    "WebSocketApi",
    "WebSocketApiArgs",
]
