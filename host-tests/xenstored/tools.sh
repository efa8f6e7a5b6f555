# What xenstore-utils are asked, the same on every server. Run by busybox sh with the tools in PATH;
# standard output is what is compared. All happens below /tools-test, which is not there at first.

T=/tools-test

# do WORDS: run a command, show it, what it wrote and its exit code.
do_() {
    echo "\$ $*"
    "$@" 2>&1
    echo "exit $?"
}

# A letter, so many times.
many() {
    printf "%${1}s" "" | tr ' ' x
}

echo "# absent"
do_ xenstore-read $T
do_ xenstore-exists $T
do_ xenstore-list $T
do_ xenstore-ls $T
do_ xenstore-rm $T
do_ xenstore-rm $T/a/b
do_ xenstore-chmod $T n0

echo "# values"
do_ xenstore-write $T/a one
do_ xenstore-read $T/a
do_ xenstore-write $T/a two $T/b three $T/deep/er/est four
do_ xenstore-read $T/a $T/b $T/deep/er/est
do_ xenstore-read -p $T/a $T/b
do_ xenstore-read $T/a $T/none
do_ xenstore-write $T/empty ""
do_ xenstore-read $T/empty
do_ xenstore-write $T/odd 'tab\tnewline\nnul\0high\xff back\\slash "quotes"'
do_ xenstore-read $T/odd
do_ xenstore-exists $T/a
do_ xenstore-exists $T/a $T/none
do_ xenstore-write $T/big "$(many 3000)"
xenstore-read $T/big | wc -c
do_ xenstore-write $T/huge "$(many 4090)"
do_ xenstore-exists $T/huge

echo "# paths"
for path in '/a b' /tools-test/a. /tools-test/a:b /tools-test//a /tools-test/a/ /tools-test/a+b \
    /tools-test/a-b_c@d @special; do
    do_ xenstore-write "$path" x
    do_ xenstore-read "$path"
done
do_ xenstore-write $T/$(many 2000) long
do_ xenstore-exists $T/$(many 2000)
do_ xenstore-rm $T/$(many 2000)
do_ xenstore-write tools-test-relative x
do_ xenstore-read /local/domain/0/tools-test-relative
do_ xenstore-rm tools-test-relative

echo "# lists"
do_ xenstore-list $T
do_ xenstore-list -p $T $T/deep
do_ xenstore-ls $T
do_ xenstore-ls -f $T
do_ xenstore-ls -p $T
do_ xenstore-ls -f -p $T

echo "# permissions"
do_ xenstore-chmod $T/a b0
do_ xenstore-chmod $T/b n0 r0 w0 b0
do_ xenstore-chmod -r $T/deep r0
do_ xenstore-ls -p $T
do_ xenstore-chmod -u $T/deep/er b0
do_ xenstore-ls -p $T
do_ xenstore-chmod $T/none n0
do_ xenstore-chmod $T/a q0
do_ xenstore-write $T/deep/child inherits
do_ xenstore-ls -f -p $T/deep

echo "# removal"
do_ xenstore-rm $T/deep/er
do_ xenstore-ls $T/deep
do_ xenstore-write $T/one/two/three x
do_ xenstore-rm -t $T/one/two/three
do_ xenstore-exists $T/one
do_ xenstore-rm $T/b $T/none
do_ xenstore-rm $T/none/none
do_ xenstore-rm /

echo "# many children"
i=0
while [ $i -lt 600 ]; do
    set -- "$@" $T/many/child-$i $i
    i=$((i + 1))
done
xenstore-write "$@"
xenstore-list $T/many | wc -l
xenstore-list $T/many | tail -n 2
xenstore-ls $T/many | tail -n 2
do_ xenstore-rm $T/many

# watch NAME COUNT PATHS: start a watch that ends after COUNT events, and wait for the first ones,
# which come when a watch is set.
watch() {
    out=/tmp/tools-test.$1 count=$2
    shift 2
    : >$out
    xenstore-watch -n $count "$@" >$out &
    until [ $(wc -l <$out) -ge $# ]; do :; done
}

echo "# watches"
watch below 6 $T/w
xenstore-write $T/w/a x
xenstore-write $T/w x
xenstore-chmod $T/w/a b0
xenstore-write $T/wide x
xenstore-rm $T/w/a
xenstore-rm $T/w
wait
cat /tmp/tools-test.below
xenstore-write $T/r/s/t x
watch removed 4 $T/r/s $T/r/s/t
xenstore-rm $T/r
wait
sort /tmp/tools-test.removed
watch transaction 3 $T/t
xenstore-write $T/t/one 1 $T/t/two 2
wait
cat /tmp/tools-test.transaction
rm /tmp/tools-test.below /tmp/tools-test.removed /tmp/tools-test.transaction

echo "# the end"
do_ xenstore-ls $T
do_ xenstore-rm $T
do_ xenstore-exists $T
