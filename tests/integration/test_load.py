"""Many processes at once, and processes that are killed or interrupted while they are answered."""

from conftest import MakeBundle
from support.bundles import ADMINISTRATOR
from support.containers import Runrootless

# 200 processes start together, and each sees exactly what it set itself.
PARALLEL = r"""
use strict; use POSIX ();
mkdir "/srv/parallel" or die; pipe(my $reader, my $writer) or die;
for my $n (1 .. 200) {
    my $pid = fork() // die "fork: $!"; next if $pid;
    close $writer; read $reader, my $byte, 1;    # the start: the end of the pipe
    my $file = "/srv/parallel/$n"; open(my $made, ">", $file) or POSIX::_exit(1); close $made;
    for my $round (1 .. 50) {
        my ($uid, $gid) = ($n * 1000 + $round, $n + $round);
        chown($uid, $gid, $file) == 1 or POSIX::_exit(2);
        my @stat = stat($file); $stat[4] == $uid && $stat[5] == $gid or POSIX::_exit(3);
        @stat = stat("/etc/shadow"); $stat[4] == 0 && $stat[5] == 42 or POSIX::_exit(4);
    }
    POSIX::_exit(0);
}
close $writer;
my %codes; while (wait() > 0) { $codes{$?}++ }
print join(" ", map { "$_:$codes{$_}" } sort keys %codes), "\n";
"""


def test_200_processes_at_once(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().set(["perl", "-e", PARALLEL]), timeout=900).check()
    assert done.stdout == "0:200\n"


# Each child is killed at another moment of its calls: from before the first one
# to after some hundreds.
KILLED = r"""
use strict; use POSIX (); use Time::HiRes ();
open(my $made, ">", "/srv/file") or die; my ($midway, $rounds) = (0, 400);
for my $n (1 .. $rounds) {
    pipe(my $reader, my $writer) or die;
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        syswrite $writer, "x"; close $writer;
        while (1) { chown $n, $n, "/srv/file"; stat "/srv/file"; POSIX::getuid(); }
    }
    close $writer; sysread $reader, my $byte, 1;
    my $until = Time::HiRes::time() + $n * 0.00001; 1 while Time::HiRes::time() < $until;
    kill "KILL", $pid; waitpid $pid, 0; $midway++ if $? == 9;
    my @stat = stat "/srv/file"; @stat && $stat[4] == $stat[5] or die "the agent is gone: $!";
}
chown 7, 8, "/srv/file"; my @stat = stat "/srv/file";
print "$midway of $rounds killed, then $stat[4]:$stat[5]\n";
"""


def test_processes_killed_while_the_agent_answers_them(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    done = runrootless.run(bundle().set(["perl", "-e", KILLED]), timeout=900).check()
    assert done.stdout == "400 of 400 killed, then 7:8\n"


# A signal handler runs every millisecond; no call may fail or lie because of it.
INTERRUPTED = r"""
use strict; use POSIX (); use Time::HiRes ();
my $signals = 0; open(my $made, ">", "/srv/another") or die;
my $action = POSIX::SigAction->new(sub { $signals++ }, POSIX::SigSet->new, POSIX::SA_RESTART());
$action->safe(1);  # Else perl runs it in the middle of anything, and may crash.
POSIX::sigaction(POSIX::SIGALRM(), $action) or die;
Time::HiRes::setitimer(Time::HiRes::ITIMER_REAL(), 0.001, 0.001);
for (my $n = 0; $n < 5000 || $signals < 100; $n++) {
    chown($n % 60000, 5, "/srv/another") == 1 or die "chown: $!";
    my @stat = stat "/srv/another" or die "stat: $!";
    $stat[4] == $n % 60000 or die "owner: $stat[4]";
}
print "fine\n";
"""


def test_calls_interrupted_by_signals(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().set(["perl", "-e", INTERRUPTED]), timeout=900).check()
    assert done.stdout == "fine\n"


def test_eight_processes_that_look_at_all_files(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """The find of a whole tree by eight processes gives what one gives."""
    script = (
        "cd /usr; find . -printf '%P %U:%G %m\\n' | sort >/srv/one;"
        " for n in 1 2 3 4 5 6 7 8; do"
        " (find . -printf '%P %U:%G %m\\n' | sort | cmp - /srv/one && echo same) & done; wait"
    )
    done = runrootless.run(bundle().script(script), timeout=900).check()
    assert done.stdout == "same\n" * 8


# A user makes sockets while somebody else unmounts: whose they are is kept at any moment.
BINDING = r"""
use strict; use POSIX (); use Socket;
mkdir "/srv/sockets" or die; chmod 0777, "/srv/sockets";
my $pid = fork() // die "fork: $!";
if (!$pid) {
    POSIX::setgid(5); POSIX::setuid(5); my $lost = 0;
    for my $n (1 .. 3000) {
        socket(my $made, AF_UNIX, SOCK_STREAM, 0) or die; my $path = "/srv/sockets/s";
        bind($made, pack_sockaddr_un($path)) or die "bind: $!";
        my @stat = lstat $path; $lost++ unless $stat[4] == 5 && $stat[5] == 5;
        unlink $path;
    }
    syswrite STDOUT, "$lost lost\n"; POSIX::_exit(0);
}
my ($umount, $missing) = ((POSIX::uname())[4] eq "aarch64" ? 39 : 166, "/srv/missing");
syscall($umount, $missing, 0) until waitpid($pid, POSIX::WNOHANG()) > 0;
"""


def test_sockets_are_bound_while_another_process_unmounts(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = bundle().set(["perl", "-e", BINDING]).add_capabilities(ADMINISTRATOR)
    assert runrootless.run(ours, timeout=300).check().stdout == "0 lost\n"
