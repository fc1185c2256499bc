"""The Ray Data pipeline: one task reads on the driver's node, actors answer on any node, the driver collects frames."""

from __future__ import annotations

from collections.abc import Iterator

import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distilgpt2_api.batch.errors import ClusterError
from distilgpt2_api.batch.files.cluster_pipe import Assignment
from distilgpt2_api.scale_out.ray_batch.line_answerer import LineAnswerer
from distilgpt2_api.scale_out.ray_batch.line_groups import LineGroups, contents_of

GROUPS_AT_ONCE = 16
"""Groups that a worker answers concurrently. More would be smaller, and each group costs Ray about 20 ms."""
BATCHES_IN_FLIGHT = 4
"""Lines in flight per worker, in engine batches: one that runs, one that waits, and two of complete lines in incomplete
groups."""
MAX_WAITING_BYTES = 128 << 20
"""Limit on lines that Ray reads ahead and on answers that wait for an earlier one."""
MAX_WAITING_BYTES_PER_REPLICA = 8 << 20


def frames(assignment: Assignment) -> Iterator[bytes]:
    """Yields a frame for each line, in order if required. Lines of lost workers have none.

    Ray must be connected. Raises ClusterError, and RayError if workers are lost and the order must be kept.
    """
    num_replicas = assignment.num_replicas or _count_slots(assignment.num_cores)
    if not num_replicas:
        raise ClusterError(f"no node of the cluster has {assignment.num_cores} cores for a worker: lower --num-threads")
    _configure(is_ordered=assignment.is_ordered, num_replicas=num_replicas)
    num_lines_at_once = BATCHES_IN_FLIGHT * assignment.max_num_sequences
    groups = ray.data.read_datasource(
        LineGroups(assignment, num_group_lines=max(1, num_lines_at_once // GROUPS_AT_ONCE)),
        override_num_blocks=1,
        num_cpus=0,  # it is mostly idle
        ray_remote_args={
            "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        },
    )
    answers = groups.map_batches(
        LineAnswerer,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(
            size=num_replicas,
            max_concurrent_calls_per_actor=GROUPS_AT_ONCE,
            max_tasks_in_flight_per_actor=GROUPS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        num_cpus=assignment.num_cores,
        # An actor of a lost node restarts on another one. Its lines don't wait for that: another pass repeats them.
        max_restarts=-1,
        max_task_retries=0,
    )
    for block in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from contents_of(block)


def _count_slots(num_cores: int) -> int:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(resources.get("CPU", 0)) // num_cores for resources in nodes)


def _configure(*, is_ordered: bool, num_replicas: int) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # A block is one row: Ray would merge small ones.
    context.target_max_block_size = 1
    context.execution_options.preserve_order = is_ordered
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=MAX_WAITING_BYTES + num_replicas * MAX_WAITING_BYTES_PER_REPLICA
    )
    # Without order the other workers continue. With order, all answers after a gap would have to wait.
    context.max_errored_blocks = 0 if is_ordered else -1
