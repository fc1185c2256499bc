"""One task reads lines on the driver's node, actors answer them on any node, and the driver yields frames."""

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
"""Groups of lines in one worker. More groups would be smaller, and each costs Ray about 20 ms."""
BATCHES_IN_FLIGHT = 4
"""Engine batches per worker: one runs, one waits, and two consist of complete lines whose group is incomplete. The
answers of a group arrive together."""
MAX_WAITING_BYTES = 128 << 20
"""Lines and answers in Ray's object store: how far it reads ahead, and how much may wait for an earlier answer."""
MAX_WAITING_BYTES_PER_REPLICA = 8 << 20


def frames(assignment: Assignment) -> Iterator[bytes]:
    """Yields each line's frame once, or not at all if its worker is lost. In input order if the assignment is ordered.

    Ray must be connected. Raises ClusterError, and RayError if a worker of an ordered assignment is lost.
    """
    num_replicas = assignment.num_replicas or _count_workers(assignment.num_cores)
    if not num_replicas:
        raise ClusterError(f"no node of the cluster has {assignment.num_cores} cores for a worker")
    _configure(is_ordered=assignment.is_ordered, num_replicas=num_replicas)
    num_lines_at_once = BATCHES_IN_FLIGHT * assignment.max_num_sequences
    groups = ray.data.read_datasource(
        LineGroups(assignment, num_group_lines=max(1, num_lines_at_once // GROUPS_AT_ONCE)),
        override_num_blocks=1,
        num_cpus=0,  # it mostly waits
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
        # Actors of a lost node restart on another node. Their lines are not retried here.
        max_restarts=-1,
        max_task_retries=0,
    )
    for block in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from contents_of(block)


def _count_workers(num_cores: int) -> int:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(resources.get("CPU", 0)) // num_cores for resources in nodes)


def _configure(*, is_ordered: bool, num_replicas: int) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # One row per block: by default Ray merges small blocks.
    context.target_max_block_size = 1
    context.execution_options.preserve_order = is_ordered
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=MAX_WAITING_BYTES + num_replicas * MAX_WAITING_BYTES_PER_REPLICA
    )
    # Without order the other workers continue. With order, later answers could only wait for the gap.
    context.max_errored_blocks = 0 if is_ordered else -1
