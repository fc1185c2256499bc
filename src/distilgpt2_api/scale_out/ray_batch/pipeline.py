"""One task reads on the driver's node, actors answer wherever there are cores, and the driver takes frames."""

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
"""That a worker answers. More would be smaller, and each costs Ray some 20 ms."""
BATCHES_IN_FLIGHT = 4
"""Of a worker's engine: one that runs, one that waits to step in, and as many in lines that are done, but not their
group, whose answers come together."""
MAX_WAITING_BYTES = 128 << 20
"""Of lines and answers that are on their way: so far ahead Ray reads, and so much waits for an earlier answer."""
MAX_WAITING_BYTES_PER_REPLICA = 8 << 20


def frames(assignment: Assignment) -> Iterator[bytes]:
    """Each line's frame, once or, where a worker is lost, not at all; in position, if that is asked.

    Ray must be connected. Raises RayError where workers are lost and order is to be kept, and ClusterError.
    """
    num_replicas = assignment.num_replicas or _count_places(assignment.num_cores)
    if not num_replicas:
        raise ClusterError(f"no node of the cluster has {assignment.num_cores} cores for a worker")
    _configure(is_ordered=assignment.is_ordered, num_replicas=num_replicas)
    num_lines_at_once = BATCHES_IN_FLIGHT * assignment.max_num_sequences
    groups = ray.data.read_datasource(
        LineGroups(assignment, num_group_lines=max(1, num_lines_at_once // GROUPS_AT_ONCE)),
        override_num_blocks=1,
        num_cpus=0,  # it waits most of the time
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
        # An actor of a node that is lost comes up on another that has room. What it had in hand does not wait for that.
        max_restarts=-1,
        max_task_retries=0,
    )
    for block in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from contents_of(block)


def _count_places(num_cores: int) -> int:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(resources.get("CPU", 0)) // num_cores for resources in nodes)


def _configure(*, is_ordered: bool, num_replicas: int) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # A block is one row: Ray would put small ones together, until they are large.
    context.target_max_block_size = 1
    context.execution_options.preserve_order = is_ordered
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=MAX_WAITING_BYTES + num_replicas * MAX_WAITING_BYTES_PER_REPLICA
    )
    # Without order the other workers go on; with it, what comes behind a gap could only wait for it.
    context.max_errored_blocks = 0 if is_ordered else -1
