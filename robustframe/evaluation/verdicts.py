"""The verdict of each example: from its clean pass through every attack it met."""

import polars as pl


def fresh_verdicts(clean: pl.DataFrame) -> pl.DataFrame:
    """Return the verdicts of a chunk before any attack, from its clean pass."""
    right = pl.col("prediction") == pl.col("label")
    return clean.select(
        "index",
        "label",
        pl.col("prediction").alias("clean_prediction"),
        right.alias("clean_correct"),
        right.alias("robust"),
        pl.lit(None, pl.String).alias("broken_by"),
        pl.lit(None, pl.Int64).alias("adversarial_prediction"),
        pl.lit(None, pl.Float64).alias("distance"),
        pl.col("forwards"),
        pl.lit(0, pl.Int64).alias("backwards"),
    )


def no_verdicts() -> pl.DataFrame:
    """Return the verdicts of a run without any finished row."""
    clean = pl.DataFrame(schema={name: pl.Int64 for name in ("index", "label", "prediction", "forwards")})
    names = {"classifier": pl.String(), "threat": pl.String()}
    return pl.DataFrame(schema={**names, **fresh_verdicts(clean).schema})


def judge(verdicts: pl.DataFrame, rows: pl.DataFrame, attack: str, *, closest: bool = False) -> pl.DataFrame:
    """Enter the outcome of one attack on a chunk.

    Args:
        verdicts: so far.
        rows: the attack's outcome, for the examples that met it.
        attack: its name.
        closest: the attack also met broken examples, and of their successes the one at the smallest distance counts.
    """
    joined = verdicts.join(rows, on="index", how="left", suffix="_now", maintain_order="left")
    success = pl.col("success").fill_null(False)
    nearer = pl.col("distance_now") < pl.col("distance").fill_null(float("inf"))
    broken = success & nearer if closest else success
    return joined.select(
        "index",
        "label",
        "clean_prediction",
        "clean_correct",
        (pl.col("robust") & ~success).alias("robust"),
        pl.when(broken).then(pl.lit(attack)).otherwise("broken_by").alias("broken_by"),
        pl.when(broken).then("prediction").otherwise("adversarial_prediction").alias("adversarial_prediction"),
        pl.when(broken).then("distance_now").otherwise("distance").alias("distance"),
        pl.col("forwards") + pl.col("forwards_now").fill_null(0),
        pl.col("backwards") + pl.col("backwards_now").fill_null(0),
    )
