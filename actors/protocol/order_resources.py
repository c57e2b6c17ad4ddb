"""Orders, batches, stations and collectors as pydantic models: resources and request bodies for /openapi.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from actors.protocol.defaults import BATCH_TASKS_MAX, TARGET_MAX
from actors.protocol.fields import Count, Data, Id
from actors.protocol.node_codes import TaskStatus
from actors.protocol.node_resources import GroupNames, Name, Plain, TaskResource
from actors.protocol.order_codes import BatchStatus, OrderStatus, OrderWish, QuotaPolicy
from actors.protocol.resources import Body, Resource, Scope

Target = Annotated[int, Field(ge=1, le=TARGET_MAX)]
# Wider than what is allowed: how many are too many is the law's to say, with the numbers beside it.
Quantity = Annotated[int, Field(ge=1, le=TARGET_MAX)]
Groups = Annotated[list["GroupRequest"], Field(min_length=1, max_length=BATCH_TASKS_MAX)]
Targets = Annotated[list["GroupTarget"], Field(min_length=1, max_length=BATCH_TASKS_MAX)]

# ---------------------------------------------------------------- bodies


class CreateOrder(Body):
    """quota_policy: which tasks count against the target; see QUOTA_POLICIES."""

    order_id: Id | None = None
    name: Name | None = None
    target_count: Target
    quota_policy: QuotaPolicy = "rows"


class ChangeOrder(Body):
    """Only what is given changes."""

    name: Name | None = None
    target_count: Target | None = None
    status: OrderWish | None = None


class GroupRequest(Body, GroupNames):
    """quantity: how many tasks. params: for each of them, beside the names."""

    sop_id: Id
    subscene_id: Id
    quantity: Quantity
    params: Data | None = None


class GroupTarget(Body, GroupNames):
    """quantity: how many tasks the group is to have. Names and params that are given replace the group's."""

    sop_id: Id
    subscene_id: Id
    quantity: Annotated[int, Field(ge=0, le=TARGET_MAX)]
    params: Data | None = None


class DispatchBatch(Body):
    batch_id: Id | None = None
    station_id: Id
    groups: Groups


class AdjustBatch(Body):
    """Groups that are not named stay as they are."""

    groups: Targets


class ChangeBatch(Body):
    status: Literal["cancelled"]


class CompleteTasks(Body):
    quantity: Annotated[int, Field(ge=1, le=BATCH_TASKS_MAX)] = 1
    sop_id: Id
    subscene_id: Id


class NodeType(Body):
    """capabilities: `requires_axon` that is missing means true."""

    name: Name
    capabilities: Data = Field(default_factory=dict)


class CreateStation(Body):
    station_id: Id | None = None
    collector_id: Id
    node_id: Id
    name: Name | None = None
    node_type: NodeType | None = None


class ChangeStation(Body):
    """Only what is given changes. Another collector or node is a new binding, which supersedes the present one."""

    collector_id: Id | None = None
    node_id: Id | None = None
    name: Name | None = None
    node_type: NodeType | None = None


class CreateCollector(Body):
    """operator_id: what the collector is called in the world outside; it stands in the handoff."""

    collector_id: Id | None = None
    name: Name
    operator_id: Plain | None = None


class ChangeCollector(Body):
    name: Name | None = None
    operator_id: Plain | None = None


# ---------------------------------------------------------------- answers

TaskCounts = dict[TaskStatus, Count]


class OrderResource(Resource):
    """task_count: tasks that are not deleted. remaining_assignable: the target less what the quota counts.
    tasks: how many there are of each status; every status is there."""

    order_id: Id
    name: str | None
    target_count: Count
    status: OrderStatus
    completed_count: Count
    task_count: Count
    remaining_assignable: Count
    quota_policy: QuotaPolicy
    batch_count: Count
    tasks: TaskCounts
    created_at_ms: Count
    started_at_ms: Count | None
    completed_at_ms: Count | None
    cancelled_at_ms: Count | None


class OrderPage(Resource):
    items: list[OrderResource]
    next_cursor: str | None


class GroupResource(Resource, GroupNames):
    """quantity: tasks that are not deleted; after it, how many there are of each status."""

    sop_id: Id
    subscene_id: Id
    params: Data | None
    quantity: Count
    pending: Count
    ready: Count
    in_progress: Count
    uploading: Count
    completed: Count
    failed: Count
    cancelled: Count


class BatchResource(Resource):
    """node_id: of the station's present binding."""

    batch_id: Id
    order_id: Id
    station_id: Id
    node_id: Id | None
    status: BatchStatus
    task_count: Count
    completed_count: Count
    tasks: TaskCounts
    groups: list[GroupResource]
    created_at_ms: Count
    started_at_ms: Count | None
    completed_at_ms: Count | None
    cancelled_at_ms: Count | None
    recalled_at_ms: Count | None


class BatchPage(Resource):
    items: list[BatchResource]
    next_cursor: str | None


class AdjustedGroup(GroupResource):
    previous_quantity: Count


class Adjusted(Resource):
    batch: BatchResource
    groups: list[AdjustedGroup]
    added_count: Count
    removed_count: Count


class CompletedGroup(GroupResource):
    total: Count


class Completed(Resource):
    """completed_count: by this call; the group's and the batch's own counts are as they stand after it."""

    batch_id: Id
    requested_count: Count
    completed_count: Count
    created_count: Literal[0]
    group: CompletedGroup
    tasks: list[TaskResource]
    batch: BatchResource


class NoticeTask(Resource):
    task_id: Id
    attempt: Count


class NoticeResource(Resource):
    """What a node is told to drop, and whether its recorder has been heard to hold none of it any more."""

    notice_id: Id
    order_id: Id
    node_id: Id
    cause: str
    tasks: list[NoticeTask]
    sends: Count
    settled: bool
    created_at_ms: Count
    settled_at_ms: Count | None


class NoticePage(Resource):
    items: list[NoticeResource]
    next_cursor: str | None


class NodeTypeResource(Resource):
    name: str | None
    capabilities: dict[str, JsonValue]


class StationResource(Resource):
    """collector_id, node_id: of the present binding; null: bound elsewhere since. version: of its newest binding."""

    station_id: Id
    name: str | None
    collector_id: Id | None
    node_id: Id | None
    version: Count
    node_type: NodeTypeResource | None
    open_batches: Count
    created_at_ms: Count


class StationPage(Resource):
    items: list[StationResource]
    next_cursor: str | None


class BindingResource(Resource):
    """by: the token that bound it. ended_at_ms null: the present one."""

    station_id: Id
    version: Count
    collector_id: Id
    node_id: Id
    bound_at_ms: Count
    ended_at_ms: Count | None
    by: str | None


class BindingPage(Resource):
    items: list[BindingResource]
    next_cursor: str | None


class CollectorResource(Resource):
    """station_id: the one that it is bound to now."""

    collector_id: Id
    name: str
    operator_id: str | None
    station_id: Id | None
    created_at_ms: Count


class CollectorPage(Resource):
    items: list[CollectorResource]
    next_cursor: str | None


class MeNode(Resource):
    node_id: Id
    name: str | None
    connected: bool


class Me(Resource):
    """Who the token is; of a collector also where it works now: null if its token names no station that is there.
    capabilities always has `requires_axon`."""

    token_id: Id
    scope: Scope
    session_id: Id | None
    node_id: Id | None
    station_id: Id | None
    expires_at_ms: Count | None
    station: StationResource | None
    collector: CollectorResource | None
    node: MeNode | None
    node_type: NodeTypeResource | None
