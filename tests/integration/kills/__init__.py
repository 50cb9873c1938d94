"""Processes that send and deliver, and are killed: nothing may be lost, and nothing invented.

A kit says how a store's programs send within a transaction. `Run` starts writers, workers and
recipients as processes, kills them at random, and brings in what each of them knows; `judge`
compares it.
"""
