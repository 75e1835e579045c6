"""Which nodes hold which group, as it is when a cluster is formed.

Every node is a member of every group and applies it: what a client is told follows from the replica on the
node it is connected to. Voters decide; the others are learners.
"""

from cluster.types import METADATA_GROUP, Configuration

METADATA_VOTERS_MAX = 5


def first_configuration(group: int, nodes: tuple[int, ...], replicas: int) -> Configuration:
    """Members of a group of a new cluster.

    Args:
        group: 0 or a shard.
        nodes: all nodes, ascending.
        replicas: voters of a shard wanted; fewer where there are fewer nodes.
    """
    wanted = METADATA_VOTERS_MAX if group == METADATA_GROUP else replicas
    start = group % len(nodes)
    rotated = nodes[start:] + nodes[:start]
    voters = rotated[: min(wanted, len(nodes))]
    return Configuration(tuple(sorted(voters)), tuple(sorted(rotated[len(voters) :])))
