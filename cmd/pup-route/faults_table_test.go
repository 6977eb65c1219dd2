package main

// Packages and files, as seen from here.
const (
	pkgMain   = "."
	pkgHook   = "./internal/hook"
	pkgSpool  = "./internal/spool"
	pkgQueue  = "./internal/queue"
	pkgState  = "./internal/state"
	pkgConfig = "./internal/config"
	pkgRoute  = "./internal/route"

	fileScan   = "../internal/ndjson/scan.go"
	fileReader = "../internal/ndjson/reader.go"
	fileAppend = "../internal/ndjson/append.go"
	fileRoute  = "internal/route/route.go"
	fileSource = "internal/route/source_linux.go"
	fileSave   = "internal/route/save.go"
	fileCalls  = "internal/route/calls.go"
	fileLines  = "internal/route/scan.go"
	fileEvent  = "internal/route/event.go"
	fileHook   = "internal/hook/hook.go"
	fileShim   = "internal/hook/shim_linux.go"
	fileHold   = "internal/hook/sandbox_linux.go"
	fileSpool  = "internal/spool/spool.go"
)

// noTee reads a pipe as anything else.
var noTee = []edit{{fileSource, "case st.Mode()&os.ModeDevice != 0:", "case st.Mode()&os.ModeNamedPipe != 0, st.Mode()&os.ModeDevice != 0:"}}

// faultMatrix are the rows that concern streams, processes and limits, hooks,
// and the disk.
var faultMatrix = []fault{
	{row: "1", fault: "the reader of our output leaves", pkg: pkgMain, test: "TestScripts/reader_leaves",
		without: "telling EPIPE from a full disk", edits: []edit{{fileRoute, "case errors.Is(err, syscall.EPIPE):", "case false:"}},
		fails: "reader_leaves.txtar:"},
	{row: "4", fault: "kill -9 at random, the pipe held", pkg: pkgMain, test: "TestFaultKilledAtRandom",
		without: "tee(2)", edits: noTee, fails: "lost"},
	{row: "13", fault: "a result comes twice", pkg: pkgState, test: "TestRepeatedRun",
		without: "a memory of runs", edits: []edit{{"internal/state/state.go", "if len(r.Run) > 0 && e.repeated(hash(r.Run)) {", "if false {"}},
		fails: "the second delivery of a run was not told from the first"},
	{row: "16", fault: "SIGTERM", pkg: pkgMain, test: "TestScripts/signals",
		without: "catching it", edits: []edit{{"main.go", "os.Interrupt, syscall.SIGTERM, syscall.SIGHUP", "os.Interrupt, syscall.SIGHUP"}},
		fails: hangs},
	{row: "17", fault: "SIGHUP with a bad configuration", pkg: pkgMain, test: "TestScripts/signals",
		without: "keeping the old one", edits: []edit{{fileRoute, "the old one stays in use:\\n%v\", err)\n\t\treturn", "the old one stays in use:\\n%v\", err)"}},
		fails: hangs},
	{row: "18", fault: "^C in the terminal", pkg: pkgHook, test: "TestOwnSession",
		without: "a session for each hook", edits: []edit{{"internal/hook/process_unix.go", "Setsid: true", "Setpgid: true"}},
		fails: "session and process"},
	{row: "20", fault: "two programs on one spool", pkg: pkgSpool, test: "TestOthersAreKeptOut",
		without: "the lock", edits: []edit{{fileSpool, "err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)", "var err error"}},
		fails: "want ErrInUse"},
	{row: "27", fault: "the clock of a prober is ahead, results come out of order", pkg: pkgRoute, test: "TestClock",
		without: "a bound on how far", edits: []edit{{"internal/route/clock.go", "&& t.Before(c.wall.Add(skew))", ""}},
		fails: "the clock shows"},
	{row: "28", fault: "a hook hangs", pkg: pkgHook, test: "TestTimeoutEndsTheWholeGroup",
		without: "the time-out", edits: []edit{{fileHook, "timeout := time.NewTimer(c.Timeout)", "timeout := time.NewTimer(time.Hour)"}},
		fails: hangs},
	{row: "29", fault: "a hook ignores SIGTERM", pkg: pkgHook, test: "TestTimeoutEndsTheWholeGroup",
		without: "SIGKILL after the grace", edits: []edit{{fileHook, "p.kill()\n\treturn <-p.ended", "return <-p.ended"}},
		fails: hangs},
	{row: "32", fault: "a grandchild keeps the output open", pkg: pkgHook, test: "TestOutcomes",
		without: "a bound on reading it after the end", edits: []edit{{"internal/hook/process.go", "cmd.WaitDelay = pipeDelay", ""}},
		fails: hangs},
	{row: "34", fault: "a hook floods its output", pkg: pkgHook, test: "TestFloodIsBounded",
		without: "the bound on what is kept", edits: []edit{{fileHook, "if over := len(t.buf) + len(p) - maxOutput; over > 0 {", "if over := len(t.buf) + len(p) - maxOutput; over > 1<<30 {"}},
		fails: "bytes"},
	{row: "35", fault: "an exit status that is for good", pkg: pkgMain, test: "TestScripts/spool",
		without: "permanent_exit", edits: []edit{{fileCalls, "slices.Contains(c.hook.PermanentExit, e.outcome.Exit)", "false"}},
		fails: "spool.txtar:"},
	{row: "35", fault: "exit status 75, a signal, no start", pkg: pkgHook, test: "TestOutcomes",
		without: "another attempt", edits: []edit{{fileHook, "(o.Exit == exTempfail || o.Exit < 0)", "false"}},
		fails: "retry false"},
	{row: "37", fault: "a command that is missing or not executable", pkg: pkgHook, test: "TestFind",
		without: "looking at the start", edits: []edit{{fileHook, "case st.Mode()&0o111 == 0:", "case false:"}},
		fails: "want may not be executed"},
	{row: "38", fault: "a command that others may write", pkg: pkgConfig, test: "TestTrusted",
		without: "looking at its mode", edits: []edit{{"internal/config/trust.go", "mode&os.ModeSymlink != 0 || mode.Perm()&0o022 == 0", "true"}},
		fails: "may be written by others"},
	{row: "39", fault: "a command is replaced after the check", pkg: pkgConfig, test: "TestTrusted",
		without: "looking at the folders above it", edits: []edit{{"internal/config/trust.go", "at = filepath.Dir(at) {", "at = \"/\" {"}},
		fails: "may be written by others"},
	{row: "40", fault: "root runs us and no user is said", pkg: pkgConfig, test: "TestRootNeedsUser",
		without: "refusing", edits: []edit{{"internal/config/config.go", "case name == \"\" && o.Root:", "case false:"}},
		fails: "got <nil>"},
	{row: "42", fault: "a hook reads and writes what it may not", pkg: pkgHook, test: "TestStrict",
		without: "Landlock", edits: []edit{{fileHold, "if err := s.landlock(command); err != nil", "if err := error(nil); err != nil"}},
		fails: "TestStrict/write_elsewhere"},
	{row: "43", fault: "a hook uses the network that it may not: TCP, UDP, MPTCP", pkg: pkgHook, test: "TestStrict",
		without: "seccomp", edits: []edit{{fileHold, "if err := s.seccomp(); err != nil", "if err := error(nil); err != nil"}},
		fails: "TestStrict/mptcp"},
	{row: "45", fault: "we were started with more descriptors", pkg: pkgMain, test: "TestScripts/environment",
		without: "closing them, in us and in the shim",
		edits: []edit{{"internal/hook/inherit_linux.go", "return unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)", "return unix.CloseRange(1<<20, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)"},
			{fileShim, "unix.CloseRange(controlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)", "unix.CloseRange(controlFD, controlFD, unix.CLOSE_RANGE_CLOEXEC)"}},
		fails: "environment.txtar:"},
	{row: "46", fault: "an event of 200 KiB", pkg: pkgMain, test: "TestFaultInjection",
		without: "keeping results out of the environment", edits: []edit{{fileEvent, "\"PUP_COUNT=\" +", "\"PUP_RESULT=\" + string(e.Line), \"PUP_COUNT=\" +"}},
		fails: "byte for byte"},
	{row: "48", fault: "commands in every field that comes from the network", pkg: pkgMain, test: "TestFaultInjection",
		without: "argv that is never a shell's", edits: []edit{{fileCalls, "go func() { r.ended <- ended{j, c.hook.Command.Run(r.stop, env, line)} }()",
			"cmd := c.hook.Command\n\t\tcmd.Argv = []string{\"/bin/sh\", \"-c\", cmd.Argv[2] + \"\\n: \" + c.job.Name}\n\t\tgo func() { r.ended <- ended{j, cmd.Run(r.stop, env, line)} }()"}},
		fails: "a text was executed"},
	{row: "48", fault: "the same for the hooks that come with pup", pkg: pkgMain, test: "TestFaultInjectionScripts", tools: []string{"jq", "curl"},
		without: "quotes", edits: []edit{{"hooks_test.go", "cmd := exec.Command(path)", "cmd := exec.Command(\"sh\", \"-c\", \"x=$(cat); eval \\\"printf %s $x\\\" | \"+path)"}},
		fails: "was executed"},
	{row: "47, 49", fault: "a name that is an option, or a command", pkg: pkgMain, test: "TestScripts/environment",
		without: "refusing it in the environment", edits: []edit{{fileEvent, "`^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$`", "`^`"}},
		fails: "environment.txtar:"},
	{row: "50", fault: "one hook is dead, others are not", pkg: pkgQueue, test: "TestLimits",
		without: "a call that each hook may always run", edits: []edit{{"internal/queue/queue.go", "q.running >= q.limit && h.running > 0", "q.running >= q.limit"}},
		fails: "took nothing, want d/0"},
	{row: "51", fault: "a hook fails for an hour", pkg: pkgQueue, test: "TestOrderOfAName",
		without: "the order of a name", edits: []edit{{"internal/queue/queue.go", "l.at, l.ran = at, true\n\theap.Push(&q.waiting, l)", "l.jobs = append(l.jobs[1:], j)\n\tq.next(l)"}},
		fails: "want nothing"},
	{row: "53", fault: "EFBIG: the journal may not grow", pkg: pkgMain, test: "TestFaultFull",
		without: "waiting for space", edits: []edit{{fileSpool, "|| errors.Is(err, syscall.EFBIG)", ""}},
		fails: "it does not say that the spool is full"},
	{row: "54", fault: "EIO on fdatasync", pkg: pkgMain, test: "TestFaultSyncFails", tools: []string{"strace"},
		without: "looking at its error", edits: []edit{{fileSpool, "return datasync(s.journal)", "_ = datasync(s.journal)\n\treturn nil"}},
		fails: "exit code 0, want 74"},
	{row: "55", fault: "fdatasync is slow", pkg: pkgMain, test: "TestFaultSlowSync", tools: []string{"strace"},
		without: "batches", edits: []edit{{"internal/route/intake.go", "if b.end != nil || !r.Buffered() {", "if true {"}},
		fails: "the batches do not grow"},
	{row: "56", fault: "kill -9 at the n-th call of each system call", pkg: pkgMain, test: "TestFaultKilledAtSyscall", tools: []string{"strace"},
		without: "tee(2)", edits: noTee, fails: "lost"},
	{row: "56", fault: "", pkg: pkgMain, test: "TestFaultKilledAtSyscall/write", tools: []string{"strace"},
		without: "renaming a journal only when it is whole", edits: []edit{{fileSpool, "unfinished := s.path(number) + \".new\"", "unfinished := s.path(number)"}},
		fails: "exit status 74"},
	{row: "57", fault: "kill -9 at random", pkg: pkgMain, test: "TestFaultKilledAtRandom",
		without: "writing the journal", edits: []edit{{fileSpool, "n, err := s.journal.WriteAt(s.buf, s.size)", "n, err := len(s.buf), error(nil)"}}, fails: "lost"},
	{row: "58", fault: "power cuts", pkg: pkgMain, test: "TestFaultPowerCut", root: true,
		without: "fdatasync", edits: []edit{{fileSpool, "return datasync(s.journal)", "return nil"}}, fails: "lost"},
	{row: "58", fault: "", pkg: pkgMain, test: "TestFaultPowerCut", root: true,
		without: "fsync of a new journal", edits: []edit{{fileSpool, "if err == nil {\n\t\terr = f.Sync()\n\t}\n\tif err == nil {\n\t\terr = os.Rename(unfinished", "if err == nil {\n\t\terr = os.Rename(unfinished"}},
		fails: "exit status 74"},
	{row: "58", fault: "", pkg: pkgMain, test: "TestFaultPowerCut", root: true,
		without: "fsync of folders", edits: []edit{{fileSpool, "return d.Sync()", "return nil"}}, fails: "lost"},
	{row: "59", fault: "flipped bits", pkg: pkgSpool, test: "TestFlipped",
		without: "checksums", edits: []edit{{"internal/spool/frame.go", "if checksum(body) != binary.LittleEndian.Uint32(b[4:]) {", "if false {"}},
		fails: "FAIL"},
	{row: "59", fault: "a torn end", pkg: pkgSpool, test: "TestTorn",
		without: "taking it for the end", edits: []edit{{fileSpool, "nextFrame(text[at:])\n\t\tif err != nil {\n\t\t\treturn nil", "nextFrame(text[at:])\n\t\tif err != nil {\n\t\t\treturn err"}},
		fails: "torn frame"},
	{row: "66", fault: "terminal control in what a hook prints", pkg: pkgMain, test: "TestFaultInjection",
		without: "escaping", edits: []edit{{"internal/route/log.go", "ndjson.Printable(string(line))", "string(line)"}},
		fails: "a raw control character on stderr"},
	{row: "66", fault: "and in a line that can't be read", pkg: pkgMain, test: "TestFaultInjection",
		without: "escaping what is not ASCII", edits: []edit{{fileAppend, "0xe0000 <= r && r <= 0xe007f:\n\t\treturn true", "0xe0000 <= r && r <= 0xe007f:\n\t\treturn false"}},
		fails: "a raw control character on stdout"},
	{row: "61", fault: "a spool of a newer version", pkg: pkgSpool, test: "TestOthersAreKeptOut",
		without: "looking at the version", edits: []edit{{fileSpool, "string(text[:len(header)]) != header", "false"}},
		fails: "a newer format"},
	{row: "61", fault: "a spool of an older version", pkg: pkgSpool, test: "TestGoldenFormat",
		without: "keeping its meaning", edits: []edit{{"internal/spool/frame.go", "kindRetry  = 'R'", "kindRetry  = 'r'"}},
		fails: "job3#0"},
}
