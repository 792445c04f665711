#!/usr/bin/env python3
"""Which test shows which point of the quality bar (Q1, Q2, ...), and how it last went: docs/quality.md.

  quality.py            checks that every point names tests, that those exist, and that each has a last result
  quality.py RESULTS    first takes the results of a test run, as ./test leaves them, into docs/quality.md

A test is Suite.Name of GoogleTest, a script under tests/, or SCRIPT:function. Tests that a run left out keep their last
result. Exits 1 for a point without a test, a test that is not there, or an empty result."""
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "quality.md"

# Point: what it asks for, in short; the tests.
POINTS = {
    "Q1": ("a rank's death is noticed at once, everywhere", "Gloo.ADeadPeerIsNoticedByEveryoneAtOnce", "tests/slow_faults.sh"),
    "Q2": ("whoever is late is named, and who waits for whom", "BatchRun_AHungWorkerIsNoticed.AndNotThoseThatWaitForIt",
           "SlowBatchRun_AStoppedWorkerIsNoticed.ByItsSilence"),
    "Q3": ("after a death the work goes on, with the same pictures", "BatchRun_AKilledWorkerCostsNoPicture.InAnyPhase", "tests/slow_faults.sh"),
    "Q4": ("every client of a dead worker gets an answer", "tests/slow_serve_chaos.py", "Dispatcher_AJobThatTakesTooLongIsGivenUp.AtItsDeadline"),
    "Q5": ("an acknowledged job is never lost", "tests/serve.py:test_accepted_jobs_outlive_the_process", "tests/slow_serve_chaos.py"),
    "Q6": ("ranks that never meet are an error within a time", "Gloo.ARankThatNeverComesIsAnErrorAfterTheTimeout"),
    "Q7": ("Ctrl-C 130, SIGTERM drains, nothing is left", "tests/serve.py:test_ends_leave_nothing", "tests/faults.sh"),
    "Q8": ("out of memory: once more with all of it free", "FromLeader.TriesOnceMoreWhereMemoryIsShort",
           "WorkerPool_ARankThatFailsAloneIsOutOfStep_SoItsGroupStartsAgain.Once"),
    "Q9": ("a full disk fails what it must, and leaves no half file", "OutputFolder.AFullDiskKeepsWhatIsThere", "Ledger.AFullDiskLeavesNoHalfLine",
           "JobWriter_AFullDisk.FailsTheJobsItMeetsAndNoOthers"),
    "Q10": ("numbers out of range are no picture", "PipelineRefuses.WeightsThatHoldNoNumbers"),
    "Q11": ("clients that vanish and clocks that stand still stop nothing", "HttpServer_AClientThatLeaves.IsHeardOf", "tests/slow_serve_chaos.py"),
    "Q12": ("an abort leaves no trace in later requests", "SlowResident_ACancelLeavesNothingBehind.UnderEveryStrategy",
            "tests/serve.py:test_a_cancelled_job_ends_and_harms_no_other"),
    "Q23": ("fuzzing of all parsers", "tests/slow_sanitize.sh"),
    "Q28": ("nothing is fetched for a client", "tests/serve_clients.py:test_edits_in_json"),
    "Q29": ("messages between processes are authenticated data", "Wire_AnotherKeyIsRefused.InBothDirections", "Wire_GarbageIsRefused.NotAllocated"),
    "Q30": ("beyond loopback only with a key or TLS", "Access_BeyondLoopback.NeedsAKeyOrTls",
            "tests/serve.py:test_a_second_server_needs_its_own_folder_and_keys_guard"),
    "Q31": ("limits on everything, each named", "ApiFields_Caps.AreNamedWithTheirValues", "HttpServer_WhatIsTooLongOrBroken.IsRefused"),
    "Q32": ("what cannot fit or be in time is refused first", "Dispatcher_ADeadlineThatCannotBeMetIsRefused.OnceCostsAreKnown",
            "Capacity.ARowThatIsTooLargeFailsAlone"),
    "Q33": ("no CORS by default, names checked", "Access_NamesThatAPageMayHaveBound.AreRefused", "Access_PagesOfElsewhere.AreRefusedUnlessAllowed"),
    "Q34": ("errors carry an id and no inner word", "Dispatcher_AFailedPictureFailsItsJob.WithoutAWordOfThisMachine",
            "HttpServer_AReplyThatIsForgottenOrThrown.Answers500"),
    "Q35": ("no path goes out or comes in; addresses are signed and expire", "tests/serve_clients.py:test_urls_are_signed_and_expire",
            "ApiFields_WhatIsNotHonoured.IsRefusedByName"),
    "Q36": ("chunks, pipelines, slow and broken clients", "HttpServer_SlowClientsAreCutOff.AndNobodyWaitsForThem",
            "HttpServer_ChunkedBodies.AreReadWithinTheLimit", "tests/slow_serve_load.py:test_slow_readers_hold_up_nobody"),
    "Q37": ("strangers are refused between hosts", "Launch_AStrangerIsIgnored.WithoutTheKey", "Launch_ARecordedGreetingIsRefused.OnAnotherConnection"),
    "Q38": ("private folders", "StoreFolder_IsPrivate.AndOneServersAlone"),
    "Q40": ("a final name is a complete file", "OutputFolder.AKilledWriterLeavesNothingForLong", "tests/slow_faults.sh"),
    "Q41": ("a ledger that survives any cut", "Ledger.CutAtAnyByteItStillLoadsAndGrows"),
    "Q42": ("resume knows what was made otherwise", "Resume.OtherSettingsAreReportedAndRedoneOrKept"),
    "Q43": ("each item once, also over nodes", "Nodes.SharesCoverAllRowsOnceBadOnesToo", "tests/launchers.sh"),
    "Q44": ("killed at any moment, the set is the same", "tests/slow_faults.sh"),
    "Q45": ("a full queue answers 429", "Dispatcher_AFullQueueRefuses.WithATimeToComeBack"),
    "Q46": ("many at once, of mixed sizes", "tests/serve_clients.py:test_64_clients_at_once", "Dispatcher_BatchesWhatFits.OfSeveralJobs"),
    "Q47": ("cancel within a step, everywhere", "WorkerPool_ACancelAtAnyStepEndsTheBatch.AndTheWorkersLiveOn", "tests/slow_serve_cancel.py"),
    "Q48": ("an event for every step", "tests/serve.py:test_a_stream_has_an_event_for_every_step"),
    "Q49": ("probes", "tests/serve.py:test_models_health_and_metrics", "tests/serve.py:test_readiness_drops_while_it_drains"),
    "Q50": ("SIGTERM drains and loses nothing", "tests/serve.py:test_sigterm_drains", "Dispatcher_DrainFinishesWhatIsDrawn.AndKeepsWhatWaits"),
    "Q51": ("metrics agree with what happened", "tests/serve.py:test_metrics_count_what_happened"),
    "Q52": ("one idempotency key is one picture", "Dispatcher_OneIdempotencyKeyIsOneJob.AlsoAfterARestart",
            "tests/serve.py:test_one_idempotency_key_is_one_picture"),
    "Q53": ("no memory grows", "tests/slow_resident.sh", "tests/slow_serve_soak.py"),
    "Q54": ("a new size costs nothing much", "SlowResident_TwoHundredMixedRequests.AreAnsweredByWorkersThatStay"),
    "Q55": ("the same seed is the same picture", "ToyFamily.IsTheSameOnFourRanks", "tests/serve.py:test_pictures_are_those_of_the_command_line"),
    "Q56": ("weights are shared out, and the plan says so", "Traffic.OfWeightShardsIsWhatArithmeticSays", "Capacity.EveryRankCountsItsWeights"),
}


def exists(test):
    script, _, function = test.partition(":")
    if test.startswith("tests/"):
        path = ROOT / script
        return path.exists() and (not function or f"def {function}(" in path.read_text())
    suite, name = test.split(".")
    pattern = re.compile(r"TEST(?:_[FP])?\(\s*" + suite + r",\s*" + name + r"\s*\)")
    return any(pattern.search(path.read_text()) for path in (ROOT / "src").rglob("*_test.cpp"))


def known_results():
    """{test: its last result} of docs/quality.md."""
    if not PAGE.exists():
        return {}
    return {m.group(1): m.group(2) for m in re.finditer(r"`([^`]+)` (passed|failed|skipped)", PAGE.read_text())}


def results_of(folder):
    """{test: result} of a run; functions of a script count one by one."""
    out = {}
    for file in folder.glob("*_test.xml"):
        for case in ElementTree.parse(file).iter("testcase"):
            if case.get("status") == "run":
                failed, skipped = case.find("failure") is not None, case.get("result") == "skipped"
                out[f"{case.get('classname')}.{case.get('name')}"] = "failed" if failed else "skipped" if skipped else "passed"
    checks = folder / "checks.txt"
    for line in checks.read_text().splitlines() if checks.exists() else ():
        result, test = line.split()
        out[test] = result
    return out


def write(results):
    lines = ["# The quality bar, point by point", "",
             "Which test shows which point, and how it last went. Written by `./test --slow` (tests that a run leaves out keep their last result); the",
             "table is `tools/quality.py`. A point without a test, or a test without a result, fails the run.", "",
             "| | What holds | Shown by |", "|---|---|---|"]
    for point, (what, *tests) in POINTS.items():
        lines.append(f"| {point} | {what} | " + "; ".join(f"`{t}` {results.get(t, '')}".strip() for t in tests) + " |")
    PAGE.write_text("\n".join(lines) + "\n")


def main():
    results = known_results()
    if sys.argv[1:]:
        results.update(results_of(pathlib.Path(sys.argv[1])))
        write(results)
    problems = []
    for point, (_, *tests) in POINTS.items():
        problems += [f"{point}: no test"] if not tests else []
        for test in tests:
            if not exists(test):
                problems.append(f"{point}: {test} is not there")
            elif test not in results:
                problems.append(f"{point}: {test} has no result yet")
            elif results[test] == "failed":
                problems.append(f"{point}: {test} failed")
    print("\n".join(problems) or f"{len(POINTS)} points, each with tests that have passed or been skipped by name")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
