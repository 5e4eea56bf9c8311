"""The endpoints of the service. To add one: a module with an `ENDPOINT`, and its line here."""

from segue.serving.http.endpoints import classify, model, reload, tradeoff

ENDPOINTS = (
    classify.ENDPOINT,
    model.ENDPOINT,
    tradeoff.ENDPOINT,
    reload.ENDPOINT,
)
