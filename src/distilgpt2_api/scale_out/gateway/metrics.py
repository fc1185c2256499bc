"""All replicas' metrics on one page."""

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.observability.metrics_page import encode_families, label_samples
from distilgpt2_api.scale_out.gateway.forwarded import WholeAnswer

REPLICA_LABEL = "replica"


def render_pages(answers: Iterable[WholeAnswer], accept: str) -> tuple[bytes, str]:
    """One page of all metrics, in the format that the Accept header requests, and its content type.

    Each sample has its replica as a label. In a sum, the end of a replica would look to Prometheus like a restarted
    counter, and the counts of all others like an increase.
    """
    families: dict[str, Metric] = {}
    for answer in answers:
        for family in text_string_to_metric_families(answer.body.decode()):
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += label_samples(family.samples, {REPLICA_LABEL: answer.replica})
    return encode_families(families.values(), accept)
