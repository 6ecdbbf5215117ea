"""A lab: one NIC, its wire, and guests that are network namespaces, in which real programs run.

    plan, plan_file   what a lab is made of, from options or a TOML file
    privilege         a user namespace, where this process may not make network namespaces
    namespace         one guest's network namespace and its tap, held by descriptors alone
    host_end          the host's addresses on the wire's tap
    lab               guests on their contexts: added, removed, changed while it runs
    rates             what the contexts did since the last look
    control           the control socket     commands   what it answers    hosts   names inside the lab

Only `lab` and what imports it needs the compiled modules; nothing here imports it early (`privilege`).
"""
