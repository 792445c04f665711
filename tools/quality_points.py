"""Which tests hold which point of the quality bar. "none: WHY" stands where there is no test yet; that is allowed for what is
neither the server's nor a fault's."""

POINTS = [
    ("Q1", "a rank's death is noticed soon and never hangs", [
        "Gloo.ADeadPeerIsNoticedByEveryoneAtOnce", "BatchRun_AKilledWorkerCostsNoPicture.InAnyPhase", "SlowBatchRun_AStoppedWorkerIsNoticed.ByItsSilence", "tests/faults.sh", "tests/slow_faults.sh"]),
    ("Q2", "a watchdog with the expected time names who is late", [
        "BatchRun_AHungWorkerIsNoticed.AndNotThoseThatWaitForIt", "SlowBatchRun_AWorkerThatIsStoppedBeforeItsFirstWordIsNoticed.Too"]),
    ("Q3", "after a rank's death the job finishes with the same picture", [
        "ModelRun.DrawsTheSamePicturesOnTwoGroupsAndThroughAKill", "BatchRun_ADeadGroupIsStartedAgainAlone.AndTheOthersDrawOn", "tests/slow_faults.sh"]),
    ("Q4", "nobody waits for ever for a dead worker", [
        "Dispatcher_AJobThatTakesTooLongIsGivenUp.AtItsDeadline", "Dispatcher_ABrokenEngineIsStartedAgain.AndNothingIsLost", "tests/serve_faults.py:test_a_killed_worker_costs_no_answer", "tests/slow_serve_chaos.py"]),
    ("Q5", "an acknowledged job is never lost", [
        "Dispatcher_GoesOnAfterARestart.WithWhatWasAccepted", "tests/serve.py:test_accepted_jobs_outlive_the_process", "tests/serve_postgres.py:test_a_dead_ones_jobs_are_taken_over",
        "tests/slow_serve_chaos.py"]),
    ("Q6", "trouble at the start of the transport is told within a deadline", [
        "Gloo.ARankThatNeverComesIsAnErrorAfterTheTimeout", "SlowBatchRun_AWorkerThatNeverLoadsEndsTheRun.AfterTheStartTime", "Launch_ConnectionsThatSayNothingHoldUpNobody.WhileTheyAreWaitedFor", "tests/launchers.sh"]),
    ("Q7", "an end leaves no process, socket or memory", ["tests/serve.py:test_ends_leave_nothing", "BatchRun_ItsOwnDeathEndsTheWorkers.AtOnce", "tests/faults.sh"]),
    ("Q8", "out of memory is retried, and costs no other picture", [
        "tests/slow_faults.sh", "tests/serve_faults.py:test_an_allocation_that_fails_costs_no_answer", "FromLeader.TriesOnceMoreWhereMemoryIsShort"]),
    ("Q9", "a full, read-only or vanished folder fails its items and leaves no partial file", [
        "OutputFolder.AFullDiskKeepsWhatIsThere", "BatchRun_AVanishedOutputFolderEndsTheRun.WithItsReason", "Dispatcher_AFullDisk.LosesNothingThatWasAccepted",
        "JobWriter_AFullDisk.FailsTheJobsItMeetsAndNoOthers", "tests/serve_faults.py:test_a_full_disk_loses_nothing"]),
    ("Q10", "pictures that hold no numbers are failures", ["PipelineRefuses.WeightsThatHoldNoNumbers", "tests/bad_input.sh"]),
    ("Q11", "a clock that jumps, a connection that drops and a client that leaves harm nothing", [
        "Dispatcher_TimeInWhichNoServerRan.DoesNotCount", "tests/serve_faults.py:test_a_clock_that_jumps", "HttpServer_AClientThatLeaves.IsHeardOf",
        "tests/serve_faults.py:test_a_client_that_leaves_cancels"]),
    ("Q12", "state is per request", [
        "Resident_ACancelLeavesNothingBehind.OnOneAndTwoRanks", "SlowResident_ACancelLeavesNothingBehind.UnderEveryStrategyOnFourRanks",
        "tests/serve.py:test_a_cancelled_job_ends_and_harms_no_other", "tests/slow_serve_soak.py"]),
    ("Q13", "what can be refused is refused before weights are read", ["tests/refusals.py", "tests/bad_input.sh"]),
    ("Q14", "nothing from a model's folder is executed", ["StoreOpen.RefusesPicklesEmptyFoldersAndDuplicates", "DownloadTest.PicklesAloneAreNamed"]),
    ("Q15", "the reader of safetensors believes nothing", ["Safetensors.RefusesHostileHeaders", "Safetensors.RefusesLyingLengthsAndOtherFiles", "tests/slow_sanitize.sh"]),
    ("Q16", "JSON, tokenizers, GGUF, CSV, JSONL: bounded", ["Config.HostileFilesAreRefused", "GgufTest.LiesAreFound", "PromptFile.RandomBytesNeverCrash", "tests/slow_sanitize.sh"]),
    ("Q17", "declared sizes of pictures are checked before memory is taken", [
        "Image.HugeDeclaredSizesAreRefusedBeforeAllocation", "Videos.ThatSayTheyAreHugeAreRefusedBeforeMemoryIsTaken", "tests/serve_hostile.py:test_pictures_that_are_bombs"]),
    ("Q18", "a bad row fails alone, with file and line", ["PromptFile.BadRowsAreNamedAndTheOthersGoOn"]),
    ("Q19", "an adapter whose keys do not all bind is an error", ["AdapterNames.ThatBelongToNothingAreListedWithTheNearest"]),
    ("Q20", "weights load strictly", ["StoreTest.ReportsEveryProblemAtOnceWithNearestNames", "Folder.TensorsThatAreMissingMisshapenOrExtraAreListedTogetherForAllParts"]),
    ("Q21", "any size that is a multiple of 16 works with every strategy", ["Matrix.HoldsUnevenHeadsAndTokens", "tests/parity.sh"]),
    ("Q22", "no input makes the process abort", ["tests/bad_input.sh", "tests/serve_schema.py", "tests/serve_hostile.py:test_raw_bytes", "tests/slow_odd_inputs.py"]),
    ("Q23", "parsers are fuzzed", ["tests/slow_sanitize.sh", "Form_ThatIsBrokenOffIsRefused.AtEveryByte"]),
    ("Q24", "names cannot leave the output folder", ["Names.NothingLeavesTheFolder", "OutputFolder.LinksDoNotLeadOutside"]),
    ("Q25", "sanitizers run clean", ["tests/slow_sanitize.sh", "tests/slow_tsan.sh"]),
    ("Q26", "an accepted plan does not run out of memory", ["PlanRows.MemoryOfOneGpuIsWithinATwentieth", "Capacity.SmallGpusAreToldByRankAndPartWithACommandThatFits"]),
    ("Q27", "tokens, keys and prompts stay out of logs", [
        "DownloadTest.SendsTheTokenToTheHubOnly", "tests/serve_hostile.py:test_keys_and_prompts_stay_out_of_the_log"]),
    ("Q28", "no image address is fetched", ["tests/serve_hostile.py:test_image_addresses_are_not_fetched"]),
    ("Q29", "messages between processes have a fixed layout and a code on each frame", [
        "Wire_GarbageIsRefused.NotAllocated", "Wire_AnotherKeyIsRefused.InBothDirections", "Wire_AFrameCannotBeReplayed.OnTheSameConnectionNorOnAnother"]),
    ("Q30", "loopback by default; beyond it a key or TLS", [
        "Access_BeyondLoopback.NeedsAKeyOrTls", "KeyRing_KnowsItsKeys.AndNoOthers", "tests/serve.py:test_a_second_server_needs_its_own_folder_and_keys_guard",
        "tests/serve.py:test_tls_and_beyond_loopback"]),
    ("Q31", "hard caps, each a setting and named", ["ApiFields_Caps.AreNamedWithTheirValues", "tests/serve_hostile.py:test_every_cap_is_named"]),
    ("Q32", "what cannot fit or be in time is refused before it is drawn", [
        "Dispatcher_ADeadlineThatCannotBeMetIsRefused.OnceCostsAreKnown", "tests/serve_hostile.py:test_every_cap_is_named"]),
    ("Q33", "no page of elsewhere may call the server", ["Access_PagesOfElsewhere.AreRefusedUnlessAllowed", "Access_NamesThatAPageMayHaveBound.AreRefused",
                                                           "Access_RequestsWithoutAName.AreRefused"]),
    ("Q34", "errors are generic and carry a request id", [
        "Dispatcher_AFailedPictureFailsItsJob.WithoutAWordOfThisMachine", "tests/serve_hostile.py:test_errors_say_nothing_of_this_machine"]),
    ("Q35", "a client neither names nor learns a path", [
        "ApiFields_WhatIsNotHonoured.IsRefusedByName", "tests/serve_hostile.py:test_errors_say_nothing_of_this_machine", "tests/serve_clients.py:test_urls_are_signed_and_expire"]),
    ("Q36", "HTTP that is too long, too slow or broken", [
        "tests/slow_serve_load.py:test_slow_readers_hold_up_nobody", "HttpServer_WhatIsTooLongOrBroken.IsRefused", "HttpServer_ChunkedBodies.AreReadWithinTheLimit", "HttpServer_SlowClientsAreCutOff.AndNobodyWaitsForThem",
        "HttpServer_PipelinedRequests.AreAnsweredInOrder", "tests/serve_hostile.py:test_raw_bytes"]),
    ("Q37", "hosts greet each other with a key", ["Launch_AStrangerIsIgnored.WithoutTheKey", "Launch_ARecordedGreetingIsRefused.OnAnotherConnection"]),
    ("Q38", "folders, sockets and shared memory are private", ["StoreFolder_IsPrivate.AndOneServersAlone", "tests/serve_hostile.py:test_files_are_private"]),
    ("Q39", "releases are signed, with a list of components", ["none: no release has been made"]),
    ("Q40", "a final name is always a whole file", ["OutputFolder.AKilledWriterLeavesNothingForLong", "Files.AtomicWritesReplaceTheWholeFileAndLeaveNothingBeside"]),
    ("Q41", "a ledger that tolerates torn lines", ["Ledger.CutAtAnyByteItStillLoadsAndGrows", "Ledger.RecordsComeBack"]),
    ("Q42", "resume checks every picture and its settings", [
        "Resume.OtherSettingsAreReportedAndRedoneOrKept", "Resume.EverySubIndexIsChecked", "Resume.APictureThatTheLedgerMissedSaysItselfWhatItIs"]),
    ("Q43", "each item is made once, over nodes too", ["BatchRun_DrawsEverythingOnce.OnSeveralGroups", "Nodes.SharesCoverAllRowsOnceBadOnesToo", "Claim.OneRunAtATimePerShareOfAFolder"]),
    ("Q44", "kill at any moment, start again: the same set", ["tests/slow_faults.sh", "tests/faults.sh"]),
    ("Q45", "a full queue answers 429 with Retry-After", ["Dispatcher_AFullQueueRefuses.WithATimeToComeBack", "tests/serve_hostile.py:test_a_burst_is_refused_in_time",
                                                            "tests/slow_serve_load.py"]),
    ("Q46", "many mixed requests at once", ["tests/serve_clients.py:test_64_clients_at_once", "Batcher_EqualShapesAreDrawnTogether.OldestFirst"]),
    ("Q47", "cancel at the next step", [
        "WorkerPool_ACancelAtAnyStepEndsTheBatch.AndTheWorkersLiveOn", "StepGate_RanksStopAtTheSameStep.WheneverTheCancelComes", "Cancel.AtEveryStepUnderEveryLayoutLeavesNothingBehind",
        "tests/serve.py:test_a_cancelled_job_ends_and_harms_no_other", "tests/slow_serve_cancel.py"]),
    ("Q48", "an event for every step, previews", ["tests/serve.py:test_a_stream_has_an_event_for_every_step", "tests/serve.py:test_previews_are_pictures_and_change_nothing",
                                                    "tests/serve.py:test_a_websocket_tells_of_all_jobs_and_cancels"]),
    ("Q49", "probes", ["tests/serve.py:test_models_health_and_metrics", "tests/serve.py:test_readiness_drops_while_it_drains"]),
    ("Q50", "SIGTERM drains", ["tests/serve.py:test_sigterm_drains", "Dispatcher_DrainFinishesWhatIsDrawn.AndKeepsWhatWaits"]),
    ("Q51", "metrics agree with the truth", ["tests/serve.py:test_metrics_count_what_happened"]),
    ("Q52", "one idempotency key is one picture", ["Dispatcher_OneIdempotencyKeyIsOneJob.AlsoAfterARestart", "tests/serve.py:test_one_idempotency_key_is_one_picture"]),
    ("Q53", "a long run does not grow", ["tests/slow_resident.sh", "tests/slow_serve_soak.py", "SlowResident_TwoHundredMixedRequests.AreAnsweredByWorkersThatStay"]),
    ("Q54", "a new size costs little once", ["tests/slow_serve_soak.py", "Resident_ThirtyMixedRequests.AreAnsweredByWorkersThatStay"]),
    ("Q55", "one seed is one picture, whatever is beside it", [
        "tests/serve_clients.py:test_64_clients_at_once", "tests/serve.py:test_pictures_are_those_of_the_command_line", "PipelineDraws.ABatchAsItsPicturesOneByOne",
        "Ordered.NumbersDoNotDependOnTheirNeighbours", "Deterministic.OneAndTwoRanksOfEveryModelDrawTheSameBits", "Deterministic.WithoutItSomeBitsAreOthers",
        "SlowDeterministic.TheWholeMatrixDrawsTheSameBits", "tests/slow_deterministic.py"]),
    ("Q56", "what does not fit one GPU is cut, and the plan says bytes", [
        "Planner.LessRoomTakesLayoutsThatHoldLess", "MemoryAuto.TakesTheLeastThatFits", "Capacity.EveryRankCountsItsWeights"]),
    ("Q57", "one install for all models", ["tests/know_before.py", "tests/slow_fresh.sh"]),
    ("Q58", "any number of GPUs is usable", ["Planner.TheChoiceIsTheFastestThatFitsAndIsExact", "Layouts.AutomaticIsAlwaysValid"]),
    ("Q59", "without links between GPUs other layouts are chosen", ["StepTime.SlowLinksTurnTheOrderAround"]),
    ("Q60", "unequal GPUs share by speed", ["none: needs two GPUs of different speed"]),
    ("Q61", "adapters per request, and none left behind", [
        "ToyAdapters.ChangeBetweenRequestsUnderEveryLayoutWithTheSameBits", "ToyAdapters.OnlyWhatTheyTouchIsReadAgain", "tests/serve_adapters.py:test_a_b_a"]),
    ("Q62", "what a strategy cannot do is refused by name", ["tests/refusals.py", "Refusals.NameWhatThisBuildHas"]),
    ("Q63", "ComfyUI outlives the engine", ["TensorServer.TriesAgainWhenAWorkerDies", "tests/comfyui.py", "tests/slow_comfyui.sh"]),
    ("Q64", "numbers say measured, modelled or cited", ["tests/bench.sh"]),
    ("Q65", "a measured number says where", ["tests/bench.sh"]),
    ("Q66", "p50, p90, p99 and the first run apart", ["tests/bench.sh", "Series.MedianAndExtremesAreExactForFewAndCloseForMany"]),
    ("Q67", "no speed-up without its distance to one GPU", ["tests/bench.sh"]),
    ("Q68", "three leagues, never mixed", ["Header.TellsWhichPipelinesAreApproximate", "Tier.IsNamedAndTravels"]),
    ("Q69", "others are compared on the same host", ["none: no other engine is measured by these tests"]),
    ("Q70", "random weights are said", ["tests/bench.sh"]),
    ("Q71", "what cannot be measured is said", ["Readings.WhatCannotBeReadIsSaid"]),
    ("Q72", "a benchmark can be repeated from its header", ["tests/bench.sh"]),
    ("Q73", "no silent change", ["Draw.TheReportHoldsEveryBatchOfEveryGroup", "LayoutChoice.AStrategyWinsAsAWholeOverLowerLevelsAndNamesWhatItDrops"]),
    ("Q74", "figures of the sources stand apart", ["Quality.TableIsThatOfTheResultFile"]),
]

# Section 9 of the bar.
WEAKNESSES = [
    ("Pickle over the network", "no object is made of a message", ["Wire_GarbageIsRefused.NotAllocated", "BatchRun_AMessageThatCannotBeUnderstoodEndsItsWorker.NotTheRun"]),
    ("Pickle or code in files", "files of weights hold numbers only", ["StoreOpen.RefusesPicklesEmptyFoldersAndDuplicates"]),
    ("Safe formats are parsers too", "lying headers are found", ["Safetensors.RefusesHostileHeaders", "GgufTest.LiesAreFound", "tests/slow_sanitize.sh"]),
    ("Path traversal, file write", "ids are the server's, names stay in their folder", ["Names.NothingLeavesTheFolder", "tests/serve_hostile.py:test_paths_lead_nowhere"]),
    ("SSRF by image address", "nothing is fetched", ["tests/serve_hostile.py:test_image_addresses_are_not_fetched"]),
    ("Denial of service by size", "caps before memory", ["Image.HugeDeclaredSizesAreRefusedBeforeAllocation", "tests/serve_hostile.py:test_every_cap_is_named",
                                                       "tests/serve_hostile.py:test_pictures_that_are_bombs"]),
    ("Memory corruption", "chunked bodies and names of shared memory", ["HttpServer_ChunkedBodies.AreReadWithinTheLimit", "tests/serve_hostile.py:test_raw_bytes",
                                                                      "tests/slow_sanitize.sh"]),
    ("Information leak in errors", "nothing of this machine", ["tests/serve_hostile.py:test_errors_say_nothing_of_this_machine"]),
    ("Unauthenticated remote calls", "a key or nothing", ["Access_BeyondLoopback.NeedsAKeyOrTls", "Launch_AStrangerIsIgnored.WithoutTheKey"]),
    ("Browser attack on a local server", "Host, Origin, Content-Type", ["Access_NamesThatAPageMayHaveBound.AreRefused", "Access_PagesOfElsewhere.AreRefusedUnlessAllowed"]),
    ("Supply chain", "no code is downloaded", ["DownloadTest.RefusesFilesOutsideOfTheFolder"]),
]
