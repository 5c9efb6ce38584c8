"""The lake's history in other tools' words.

    selection    which runs a reference means
    openlineage  each event of a run as an OpenLineage RunEvent
    datasets     what a run names among its inputs and outputs, as OpenLineage datasets
    endpoint     events to a server, one by one

One error family: ExportError.
"""
