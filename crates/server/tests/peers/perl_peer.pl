# Perl's Gearman::Client and Gearman::Worker with a broker: perl_peer.pl PORT
use strict;
use warnings;
use Gearman::Client;
use Gearman::Worker;

my $server = "127.0.0.1:$ARGV[0]";
my $pid = fork();
if (!$pid) {
    my $worker = Gearman::Worker->new(job_servers => [$server]);
    $worker->register_function(
        reverse => sub {
            my ($job) = @_;
            $job->set_status(1, 2);
            return scalar reverse $job->arg;
        }
    );
    $worker->register_function(broken => sub { die "broken\n" });
    $worker->work while 1;
}
alarm 40;
my $client = Gearman::Client->new(job_servers => [$server]);
my $ok = 1;
for my $text (qw(one two three)) {
    my $result = $client->do_task("reverse", $text, { timeout => 20 });
    $ok = 0 unless $result && $$result eq scalar reverse $text;
}
my $failed = 0;
my $tasks = $client->new_task_set;
$tasks->add_task("broken", "", { on_fail => sub { $failed = 1 }, on_exception => sub { $failed = 1 } });
$tasks->add_task("reverse", "abc", { uniq => "-", high_priority => 1 });
$tasks->wait(timeout => 20);
my $handle = $client->dispatch_background("reverse", "later");
$ok = 0 unless $handle && $client->get_status($handle);
kill "KILL", $pid;
waitpid $pid, 0;
die "perl is not content: ok $ok, failed $failed\n" unless $ok && $failed;
print "perl is content\n";
