"""What runs inside of Spark's own environment: a request a line, an answer a line, as JSON."""

import json
import sys
from typing import Any

from pyspark.sql import SparkSession

SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "Asia/Kathmandu",
    "spark.sql.shuffle.partitions": "2",
}


def main() -> None:
    builder = SparkSession.builder.master("local[1]")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    for line in sys.stdin:
        print(json.dumps(answer(session, json.loads(line))), flush=True)


def answer(session: Any, asked: dict[str, str]) -> dict[str, Any]:
    try:
        if "read" in asked:
            session.read.parquet(asked["read"]).createOrReplaceTempView(asked["view"])
            return {"rows": []}
        return {"rows": [list(row) for row in session.sql(asked["sql"]).collect()]}
    except Exception as error:
        return {"error": str(error)[:2000]}


main()
