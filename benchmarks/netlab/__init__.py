"""Namespace guests on CDNA and on what it replaces, under the same loads, in turns.

contenders   the guests and what connects them     loads   iperf3, ping, a flood     turns   ratios
tables       for people
"""
