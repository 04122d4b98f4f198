"""Orders and executions as they are published."""

from hedgelock_ingest.protocol.private_messages import ExecutionRow, OrderRow
from hedgelock_ingest.translate.formatting import iso


def published_order(category: str, row: OrderRow) -> dict[str, object]:
    """Return a state of an order under the published names."""
    return {
        "category": category,
        "symbol": row.symbol,
        "order_id": row.orderId,
        "order_link_id": row.orderLinkId or None,
        "status": row.orderStatus,
        "side": row.side or None,
        "order_type": row.orderType or None,
        "price": row.price or None,
        "quantity": row.qty,
        "filled_quantity": row.cumExecQty or None,
        "remaining_quantity": row.leavesQty or None,
        "average_price": row.avgPrice or None,
        "filled_value": row.cumExecValue or None,
        "trigger_price": row.triggerPrice or None,
        "time_in_force": row.timeInForce or None,
        "reduce_only": row.reduceOnly,
        "position_index": row.positionIdx,
        "cancel_type": row.cancelType or None,
        "reject_reason": row.rejectReason or None,
        "created_at": iso(int(row.createdTime)),
    }


def published_execution(category: str, row: ExecutionRow) -> dict[str, object]:
    """Return an execution under the published names."""
    return {
        "category": category,
        "symbol": row.symbol,
        "exec_id": row.execId,
        "order_id": row.orderId,
        "order_link_id": row.orderLinkId or None,
        "side": row.side,
        "price": row.execPrice,
        "size": row.execQty,
        "fee": row.execFee or None,
        "fee_currency": row.feeCurrency or None,
        "fee_rate": row.feeRate or None,
        "value": row.execValue or None,
        "exec_type": row.execType or None,
        "is_maker": row.isMaker,
        "closed_size": row.closedSize or None,
        "exec_pnl": row.execPnl or None,
        "mark_price": row.markPrice or None,
        "remaining_quantity": row.leavesQty or None,
        "sequence": row.seq,
    }
