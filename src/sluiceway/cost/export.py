"""Reports as files: CSV, and FOCUS 1.0 (FinOps Open Cost and Usage Specification) as CSV.

Invariant: pure functions to text. A cell that a spreadsheet would take for a formula is quoted with
an apostrophe: names are clients' words. FOCUS rows sum to the bill.
"""

import csv
import datetime
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sluiceway.cost.prices import NANO
from sluiceway.cost.report import (
    CPU,
    LINKS,
    LOG,
    OBJECTS,
    RAM,
    REQUESTS,
    RESOURCES,
    STORAGE,
    UNITS,
    Line,
    Month,
    Row,
    month_end_ms,
    month_start_ms,
)

FORMULA = ("=", "+", "-", "@", "\t", "\r")
HEAD = ("name", "tenant", "bytes", "index_bytes", "points", "series", "gb_months", "money")
PROVIDER = "Sluiceway"
SERVICES = {
    STORAGE: ("Storage", "Metrics storage"),
    CPU: ("Compute", "Ingest and queries"),
    RAM: ("Compute", "Series in memory"),
    REQUESTS: ("Storage", "Requests to the object store"),
}
TRAFFICS = {
    LOG: "Log between zones",
    LINKS: "Links between zones",
    OBJECTS: "To and from the object store",
}
"""By part; of others, answers to queries."""
FOCUS_COLUMNS = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
)


def plain(text: str) -> str:
    """A client's text as a cell."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"'{clean}" if clean.startswith(FORMULA) else clean


def written(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def rows_csv(rows: Iterable[Row]) -> str:
    """A dimension's rows, a column a resource."""
    cells = (
        (
            plain(row.name),
            plain(row.tenant),
            row.bytes,
            row.index_bytes,
            row.points,
            row.series,
            f"{row.gb_months:.9f}",
            amount(row.nano),
            *(amount(row.resources.get(resource, 0)) for resource in RESOURCES),
        )
        for row in rows
    )
    return written((*HEAD, *RESOURCES), cells)


def amount(nano: int) -> str:
    """Money to the billionth."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    return f"{sign}{nano // NANO}.{nano % NANO:09d}"


def focus_csv(month: Month, plans: Mapping[str, str]) -> str:
    """The bill's lines as FOCUS 1.0; `plans`: by tenant."""
    rows = (focus_row(month, line, plans) for line in month.lines)
    return written(FOCUS_COLUMNS, ([row.get(name, "") for name in FOCUS_COLUMNS] for row in rows))


def focus_row(month: Month, line: Line, plans: Mapping[str, str]) -> dict[str, Any]:
    traffic = ("Networking", TRAFFICS.get(line.part, "Answers to queries"))
    category, service = SERVICES.get(line.resource, traffic)
    cost = amount(line.nano)
    price = f"{line.nano / NANO / line.quantity:.9f}" if line.quantity else "0"
    quantity, unit = f"{line.quantity:.9f}", UNITS[line.resource]
    resource = "/".join(filter(None, (line.tenant, line.metric, line.part, line.user)))
    sku = f"{line.resource}-{line.tier.strip('()')}"
    tags = {"tier": line.tier, "part": line.part, "plan": plans.get(line.tenant, "")}
    tags |= {"metric": line.metric, "user": line.user}
    return {
        "BilledCost": cost,
        "BillingAccountId": "sluiceway",
        "BillingAccountName": PROVIDER,
        "BillingCurrency": month.currency,
        "BillingPeriodStart": moment(month_start_ms(month.month)),
        "BillingPeriodEnd": moment(month_end_ms(month.month)),
        "ChargeCategory": "Usage",
        "ChargeDescription": plain(f"{service}: {line.resource} of {resource}, {line.tier}"),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": moment(month.from_ms),
        "ChargePeriodEnd": moment(month.until_ms),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "ContractedUnitPrice": price,
        "EffectiveCost": cost,
        "InvoiceIssuerName": PROVIDER,
        "ListCost": cost,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "ResourceId": plain(resource),
        "ResourceName": plain(line.metric or line.part),
        "ResourceType": line.part,
        "ServiceCategory": category,
        "ServiceName": service,
        "SkuId": sku,
        "SkuPriceId": sku,
        "SubAccountId": plain(line.tenant),
        "SubAccountName": plain(line.tenant),
        "Tags": json.dumps({name: value for name, value in tags.items() if value}),
    }


def moment(time_ms: int) -> str:
    """As FOCUS wants times: UTC, to the second."""
    at = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
