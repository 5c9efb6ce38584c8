"""The suites judged: what they let through, what changed in them, what other thresholds would decide.

    corruptions, mutations   the frozen list of damage, and which rule notices what of it
    history                  how suites, thresholds and outcomes went; whose fate another suite changes
    coverage                 columns without a rule; rules that cannot fail, contradict or repeat one another
    drift                    shares that held, version by version
    standing                 under which suites, thresholds and waivers the rows of a model were admitted
    counterfactual           which rows another threshold would flip
    page                     all of it as one HTML page

Nothing here decides anything, and nothing is written to a lake.
"""
