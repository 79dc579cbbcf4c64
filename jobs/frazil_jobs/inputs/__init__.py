"""The ways in: models, prompts and pictures found, checked, fetched and cached, and the task that compute reads.

`task`, `rows` and `folder` know no store and no broker, so that the compute process may import them; `fetch` and
`tasks` are the processes that hold read credentials.
"""
