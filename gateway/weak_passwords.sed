# What guessers try first is taken out of a password; fewer than 8 characters left: weak.
# gateway/passwords.py and, in the container, docker-entrypoint.sh (sed -E) both read this file, so it holds nothing but
# lines s/pattern/replacement/g (I: whatever the case), in what Python and sed share; longer words before shorter ones.

# signs for letters, inside a word: p@ssw0rd
s/([a-z])[4@]([a-z])/\1a\2/gI
s/([a-z])3([a-z])/\1e\2/gI
s/([a-z])1([a-z])/\1i\2/gI
s/([a-z])0([a-z])/\1o\2/gI
s/([a-z])55?([a-z])/\1ss\2/gI
s/([a-z])7([a-z])/\1t\2/gI

# a single word with digits and signs around it, whatever word it is: giraffe-2027
s/^[^A-Za-z]{0,8}([A-Z]?[a-z]{0,11}|[A-Z]{0,11})[^A-Za-z]{0,8}$//g

# words of every list of leaked passwords, and our own
s/(administrator|christopher|fashionmnist|fashion_mnist|qwertyuiop|tensorflow|basketball|chocolate|butterfly)//gI
s/(spiderman|starwars|baseball|football|sunshine|princess|superman|password|passwort|changeme|iloveyou|whatever)//gI
s/(trustnoi|trustno1|computer|internet|mercedes|liverpool|michelle|jennifer|jordan23|letmein|welcome|default)//gI
s/(charlie|michael|freedom|vitrine|fashion|gateway|company|nothing|passwd|pasword|qwerty|azerty|qwertz)//gI
s/(monkey|dragon|master|shadow|batman|summer|winter|spring|autumn|secret|server|docker|admin|guest|hello)//gI
s/(login|nginx|please|change|mnist|keras|model|root|user|test|demo|love|pass|temp|toor|abcd)//gI

# years, keyboard and alphabet runs, digits in order, a piece said twice
s/(19|20)[0-9][0-9]//gI
s/(1qaz|2wsx|3edc|4rfv|5tgb|6yhn|7ujm|qaz|wsx|edc|rfv|tgb|yhn|ujm|zaq1|xsw2|cde3|zaq|xsw|cde)//gI
s/(1q|2w|3e|4r|5t|6y|7u|8i|9o|0p|q1|w2|e3|r4|t5|y6|u7|i8|o9|p0){2,}//gI
s/(qw|we|er|rt|ty|yu|ui|io|op|as|sd|df|fg|gh|hj|jk|kl|zx|xc|cv|vb|bn|nm){2,}//gI
s/(ab|bc|cd|de|ef|fg|gh|hi|ij|jk|kl|lm|mn|no|op|pq|qr|rs|st|tu|uv|vw|wx|xy|yz){2,}//gI
s/(01|12|23|34|45|56|67|78|89|90|09|98|87|76|65|54|43|32|21|10){2,}//gI
s/(.+)\1+//gI
