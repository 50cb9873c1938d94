"""Processes that send and deliver, and are killed: nothing may be lost, and nothing invented.

A kit says how a store's programs send within a transaction. `Run` starts writers, workers and
recipients as processes, kills them at random, does them what other harm the kit knows, and brings
in what each of them knows; `check` compares it.
"""
